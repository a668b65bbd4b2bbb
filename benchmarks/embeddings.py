"""Measure the classification of photographs by embeddings, into docs/results/embeddings.json.

    python -m benchmarks.embeddings --data DIR [--models-named photos mnist-vae ...]

DIR holds a folder of photographs for each kind. For each draw, `--labels` photographs of each kind
are labelled. They are the gallery of the nearest neighbours and the training set of the linear
probe; the others are classified. Vectors are compared by cosine similarity. The baselines are
pixels at 32x32 and their principal components.
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

NEIGHBOURS, RETRIEVED_IMAGES = 5, 10
# C of the probe, selected by cross-validation on the labelled photographs.
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
PIXELS_INPUT = InputSpec(height=32, width=32, channels=3)
PRINCIPAL_COMPONENTS = 64
SUFFIXES = (".jpg", ".jpeg", ".png")
CHUNK_IMAGES = 256  # decoded at once


def main() -> None:
    """Run the command."""
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
        "--labels", type=int, default=200, metavar="N", help="of each kind (%(default)s)"
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
    results = {}
    for name, vectors in _compute_vectors(paths, options.models, options.models_named):
        components = PRINCIPAL_COMPONENTS if name.startswith("PCA") else None
        draws = [
            measure(vectors, labels, options.labels, seed, components)
            for seed in range(options.draws)
        ]
        measured = {key: _summarise([each[key] for each in draws]) for key in draws[0]}
        results[name] = {"length": components or vectors.shape[1], "measured": measured}
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(
    vectors: Vectors, labels: Labels, labelled: int, seed: int, components: int | None = None
) -> Mapping[str, float]:
    """Accuracy of 5 nearest neighbours and of a linear probe, and precision of retrieval, 0 to 1.

    `labelled` photographs of each kind are drawn. With `components`, vectors are replaced by
    principal components, which are fitted to the labelled photographs.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        generator.permutation(np.flatnonzero(labels == kind))[:labelled]
        for kind in np.unique(labels)
    ]
    gallery = np.sort(np.concatenate(drawn))
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
    search = NearestNeighbors(n_neighbors=RETRIEVED_IMAGES + 1, metric="cosine").fit(unit)
    nearest = search.kneighbors(unit[test])[1][:, 1:]  # the first is the photograph itself
    return {
        "5-nn": float(neighbours.score(unit[test], labels[test])),
        "probe": float(probe.score(unit[test], labels[test])),
        f"precision at {RETRIEVED_IMAGES}": float(
            (labels[nearest] == labels[test][:, None]).mean()
        ),
    }


def _compute_vectors(
    paths: list[Path], models: Path, names: list[str]
) -> Iterator[tuple[str, Vectors]]:
    decoded = image_file.decode(paths, PIXELS_INPUT, silence)
    pixels = decoded.reshape(len(paths), -1).astype(np.float32) / np.float32(255)
    yield "pixels, 32x32", pixels
    yield f"PCA of pixels, {PRINCIPAL_COMPONENTS} components", pixels
    for name in names:
        model = load_newest(models, name)
        images = (
            image_file.decode(paths[start : start + CHUNK_IMAGES], model.manifest.input, silence)
            for start in range(0, len(paths), CHUNK_IMAGES)
        )
        chunks = [
            model.graphs.chain_in_batches(["encoder"], ["latents"], images=each)["latents"]
            for each in images
        ]
        yield f"`{name}`", np.concatenate(chunks)


def _summarise(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
