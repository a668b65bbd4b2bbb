"""Lower bound of uvicorn: an application that reads the body and responds at once."""

from typing import Any

import uvicorn
from score import PORT


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"14")]}
    )
    await send({"type": "http.response.body", "body": b'{"score": 0.0}'})


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, access_log=False)
