"""Measure how well embeddings tell kinds of photographs apart, into docs/results/embeddings.json.

    python -m benchmarks.embeddings --data DIR [--models-named photos mnist-vae ...]

DIR holds a folder of photographs for each kind. For each draw, `--labels` photographs of each kind are labelled: the
gallery of the nearest neighbours and the training set of the linear probe; the others are classified. Vectors are
compared by cosine similarity. Beside the models stand pixels at 32x32 and their principal components.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from bundle.manifest import InputSpec
from training.data import image_file
from training.export.published import load_newest
from training.progress import silence

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

NEIGHBOURS, RETRIEVED = 5, 10
STRENGTHS = (
    3e-4,
    1e-3,
    3e-3,
    1e-2,
    3e-2,
    1e-1,
)  # C of the probe, by cross-validation on the labelled photographs
SMALL = InputSpec(height=32, width=32, channels=3)
COMPONENTS = 64
SUFFIXES = (".jpg", ".jpeg", ".png")
CHUNK = 256  # photographs that are decoded at once


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embeddings", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="a folder of photographs of each kind",
    )
    parser.add_argument(
        "--models-named", nargs="+", default=["photos", "mnist-vae", "fashion-vae"], metavar="MODEL"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--labels", type=int, default=200, metavar="N", help="labelled ones of a kind (%(default)s)"
    )
    parser.add_argument("--draws", type=int, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results/embeddings.json"),
        metavar="JSON",
        help="(%(default)s)",
    )
    options = parser.parse_args()
    kinds = sorted(path for path in options.data.iterdir() if path.is_dir())
    paths = [
        path for kind in kinds for path in sorted(kind.iterdir()) if path.suffix.lower() in SUFFIXES
    ]
    labels = np.array([kinds.index(path.parent) for path in paths])
    found = {}
    for name, vectors in _vectors(paths, options.models, options.models_named):
        components = COMPONENTS if name.startswith("PCA") else None
        draws = [
            measure(vectors, labels, options.labels, seed, components)
            for seed in range(options.draws)
        ]
        measured = {key: _spread([each[key] for each in draws]) for key in draws[0]}
        found[name] = {"length": components or vectors.shape[1], "measured": measured}
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(
    vectors: Vectors, labels: Labels, labelled: int, seed: int, components: int | None = None
) -> Mapping[str, float]:
    """Accuracy of 5 nearest neighbours and of a linear probe, and the precision of retrieval: shares, 0 to 1.

    `labelled` photographs of each kind are drawn; `components` principal components are fitted to them first.
    """
    generator = np.random.default_rng(seed)
    of_kinds = [
        generator.permutation(np.flatnonzero(labels == kind))[:labelled]
        for kind in np.unique(labels)
    ]
    gallery = np.sort(np.concatenate(of_kinds))
    test = np.setdiff1d(np.arange(len(labels)), gallery)
    if components:
        vectors = PCA(components, random_state=0).fit(vectors[gallery]).transform(vectors)
    unit = normalize(vectors)
    neighbours = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(
        unit[gallery], labels[gallery]
    )
    strengths = GridSearchCV(LogisticRegression(max_iter=1000), {"C": STRENGTHS}, cv=5)
    probe = make_pipeline(StandardScaler(), strengths)
    probe.fit(unit[gallery], labels[gallery])
    nearest = (
        NearestNeighbors(n_neighbors=RETRIEVED + 1, metric="cosine")
        .fit(unit)
        .kneighbors(unit[test])[1][:, 1:]
    )
    return {
        "5-nn": float(neighbours.score(unit[test], labels[test])),
        "probe": float(probe.score(unit[test], labels[test])),
        f"precision at {RETRIEVED}": float((labels[nearest] == labels[test][:, None]).mean()),
    }


def _vectors(paths: list[Path], models: Path, names: list[str]) -> Iterator[tuple[str, Vectors]]:
    pixels = _decoded(paths, SMALL).reshape(len(paths), -1).astype(np.float32) / np.float32(255)
    yield "pixels, 32x32", pixels
    yield f"PCA of pixels, {COMPONENTS} components", pixels
    for name in names:
        model = load_newest(models, name)
        parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        images = (_decoded(part, model.manifest.input) for part in parts)
        chunks = [
            model.graphs.chain_in_batches(["encoder"], ["latents"], images=each)["latents"]
            for each in images
        ]
        yield f"`{name}`", np.concatenate(chunks)


def _decoded(paths: list[Path], spec: InputSpec) -> npt.NDArray[np.uint8]:
    return image_file.decode(paths, spec, silence)


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
