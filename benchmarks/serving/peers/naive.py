"""FastAPI as its tutorial shows it: a `def` endpoint that takes an UploadFile."""

from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, UploadFile
from score import PORT, Scorer

app, scorer = FastAPI(), Scorer()


@app.post("/score")
def score(image: Annotated[UploadFile, File()]) -> dict[str, float]:
    return {"score": scorer.of_one(image.file.read())}


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, access_log=False)
