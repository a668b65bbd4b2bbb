"""An empty endpoint of FastAPI that reads the same body."""

import uvicorn
from fastapi import FastAPI, Request
from score import PORT

app = FastAPI()


@app.post("/score")
async def score(request: Request) -> dict[str, float]:
    await request.body()
    return {"score": 0.0}


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, access_log=False)
