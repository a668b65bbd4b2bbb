"""FastAPI as its tutorial shows it: a `def` endpoint that takes an UploadFile."""

from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI, File, UploadFile
from score import PORT, Scorer

app, scorer = FastAPI(), Scorer()


@app.post("/score")
def score(image: Annotated[UploadFile, File()]) -> dict[str, float]:
    """Score one image."""
    return {"score": scorer.of_one(image.file.read())}


@app.post("/npy")
def npy(body: Annotated[bytes, Body(media_type="application/x-npy")]) -> dict[str, list[float]]:
    """Score an array of pixels."""
    return {"scores": scorer.of_npy(body)}


@app.post("/json")
def json(images: Annotated[list[str], Body(embed=True)]) -> dict[str, list[float]]:
    """Score images in base64."""
    return {"scores": scorer.of_base64(images)}


@app.post("/multipart")
def multipart(images: Annotated[list[UploadFile], File()]) -> dict[str, list[float]]:
    """Score uploaded images."""
    return {"scores": scorer.of_many([image.file.read() for image in images])}


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, access_log=False)
