"""Write docs/results.md from the results of the benchmarks in docs/results/.

python -m benchmarks.results [--figures docs/results] [--output docs/results.md]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import anomaly, runs, serving
from benchmarks.results.runs import Run
from training import recipe, recipes
from training.recipe import Recipe


class ResultRow(NamedTuple):
    """A line of the table: a recipe, its metrics, results by others, and the goal."""

    recipe: str
    metrics: tuple[str, ...]
    reference: str = ""
    goal: str = ""


UNMEASURED = "not measured yet"
NAMES = {
    "mse": "MSE",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "nll": "NLL",
    "elbo": "ELBO",
    "accuracy": "accuracy",
}
ROWS = (
    ResultRow("mnist-undercomplete", ("mse",), "", "at most 0.0010; stretch 0.0007"),
    ResultRow("classics/mnist-undercomplete", ("mse",), "reported: 0.0279"),
    ResultRow("mnist-stacked", ("mse",), "", "at most 0.0020"),
    ResultRow("studies/mnist-stacked-greedy", ("mse",)),
    ResultRow("classics/mnist-stacked", ("mse",)),
    ResultRow("classics/mnist-stacked-greedy", ("mse",)),
    ResultRow("mnist-stacked-sigmoid", ("mse",), "", "at most 0.0022"),
    ResultRow("studies/mnist-stacked-sigmoid-greedy", ("mse",)),
    ResultRow("classics/mnist-stacked-sigmoid", ("mse",), "reported: 0.0446"),
    ResultRow("classics/mnist-stacked-sigmoid-greedy", ("mse",)),
    ResultRow(
        "mnist-denoising",
        ("psnr", "ssim"),
        "a small U-Net: 21.0 dB, 0.86",
        "at least 22.0 dB, 0.90; stretch 22.5, 0.92",
    ),
    ResultRow("classics/mnist-denoising", ("psnr", "ssim"), "after 5 epochs: 18.2 dB, 0.81"),
    ResultRow("mnist-latent2", ("mse",), "", "at most 0.0345"),
    ResultRow("classics/mnist-latent2", ("mse",), "an MLP: 0.0401"),
    ResultRow("fashion-latent3", ("mse",), "", "at most 0.0185"),
    ResultRow("classics/fashion-latent3", ("mse",), "an MLP: 0.0220"),
    ResultRow(
        "mnist-vae",
        ("nll", "elbo", "mse"),
        "VampPrior 85.8, PIWAE 84.6 nats",
        "NLL at most 85.0 nats; stretch 84.0",
    ),
    ResultRow("classics/mnist-vae", ("nll", "elbo", "mse")),
    ResultRow("fashion-vae", ("elbo", "mse")),
    ResultRow(
        "mnist-classifier",
        ("accuracy",),
        "stacked denoising AE 98.72 %, ladder 99.43 %",
        "at least 99.0 %; stretch 99.4",
    ),
    ResultRow("classics/mnist-classifier", ("accuracy",), "reported: 96.16 %"),
    ResultRow("mnist-classifier-conv", ("accuracy",), "", "at least 99.6 %"),
)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--figures", type=Path, default=Path("docs/results"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results.md"), metavar="MD", help="(%(default)s)"
    )
    options = parser.parse_args()
    options.output.write_text(render(options.figures), encoding="utf-8")
    if served := _read(options.figures, "serving"):
        (options.figures / "serving.png").write_bytes(serving.draw(served))
    print(f"wrote {options.output}")


def render(results: Path) -> str:
    """The document, from the results in a directory."""
    return f"""# Results

Written by `python -m benchmarks.results` from [docs/results](results), which the commands below
wrote.

## Models

`python -m benchmarks.zoo` trains every recipe on the full data. It measures the exported bundle
with ONNX Runtime on all 10,000 test images; choices were made on held-out training images. Each
metric is from one run, or the mean and standard deviation of three seeds if a run takes less than
ten minutes. PCA has as many components as the network has latent dimensions. NLL is estimated with
5,000 importance samples of the posterior for each of the first 1,000 test images, binarised once.
There are recipes of the classic configurations ([classics](../training/recipes/classics)), and of
ours with greedy layer-wise pre-training ([studies](../training/recipes/studies)).

{_models(runs.read(results / "models.json"))}

## Labels

`python -m benchmarks.few_labels`: accuracy of the network of `mnist-classifier` on the test
images, after fine-tuning on few labels. It starts from unsupervised pre-training on all training
images (as a denoising autoencoder, half of the pixels masked), or from random weights. The
baseline is a logistic regression on as many principal components. Mean and standard deviation of
three seeds.

{_labels(_read(results, "labels"))}

## Anomaly detection

`python -m benchmarks.anomaly`: area under the ROC curve of the exported bundle in percent, by
image unless stated otherwise, with the standard error of Hanley and McNeil (1982). Nothing is
trained: score components are fitted to the features of a backbone that others trained on ImageNet,
or to scattering coefficients for digits and clothes. Synthetic anomalies in held-out normal images
select the components, the working size and the memory bank; labelled images are used only for the
test. While the components were built, test metrics of bottle, cookies, screw, MNIST and
Fashion-MNIST were known ([decision 20](decisions/0020-components-over-features.md)). The baselines
are fitted in a minute on pixels.

{anomaly.section(_read(results, "anomaly")) or UNMEASURED}

## Embeddings of photographs

`python -m benchmarks.embeddings`: 4,317 photographs of five kinds of flowers, on which nothing was
trained. 200 of each kind are labelled, and the others are classified; mean and standard deviation
of three draws. Precision at 10 is the share of the ten nearest other photographs that show the
same kind. ImageNet has a class of daisies.

{_embeddings(_read(results, "embeddings"))}

## Scoring in bulk

`python -m benchmarks.bulk`: files scored by `python -m service score`. The references are the bare
session on the same images as arrays, and reading and decoding the files one after the other. Then
a run is killed and resumed.

{_bulk(_read(results, "bulk"))}

`python -m benchmarks.bulk_ray`: the same command with `--engine ray` and one actor. Both engines
have one thread of inference and take turns; the metrics are medians. Ray gave its workers the usual
priority (`RAY_worker_niceness=0`). The goal is 0.95 of the local rate, and 0 rows lost and doubled
after a run was killed three times at random times, and an actor once.

{_bulk_ray(_read(results, "bulk-ray"))}

## Models in fp16

`python -m benchmarks.fp16`: changes by fp16 (`python -m training convert-fp16`) of the shipped
models, with every result rounded as a GPU rounds it. The largest differences are on the first
1,000 test images, half of them resized; the rest is on all 10,000. A model is refused if its
outputs would change too much.

{_fp16(_read(results, "fp16"))}

## Speed of the training loop

`python -m benchmarks.training_speed`: images a second. The goals are 0.95 of the bare loop and
three times the DataLoader loop. The second goal is possible only if the network leaves time for
other work; the bare loop is the limit.

{_speed(_read(results, "training-speed"))}

## Serving

`python -m benchmarks.serving`: one image a request, a score in the response. The server has one
core and the load another. All servers run the same graph with one thread, one server at a time.
Medians of three rounds.

{_serving(_read(results, "serving"))}

On a GPU, nothing was run yet: `python -m benchmarks.gpu` measures there.

### Time of a small request

`python -m benchmarks.serving.profile`: inside the process, 16 requests at a time on one core,
without other load.

{serving.profile(_read(results, "serving-profile")) or UNMEASURED}

### Workers

`python -m benchmarks.serving.workers`: two workers compared with one, and with two processes of
their own, on the same two cores, with as many connections for each process. The goals are 1.85
times the requests of one worker if the load has cores of its own, else CPU time within 8 %; and at
most 60 MB of memory that the second worker alone uses (USS).

{serving.workers(_read(results, "workers")) or UNMEASURED}

### Many detectors in one process

`python -m benchmarks.density docs/cookie.jpg`: detectors on one backbone, each with the weights of
its scorer in memory. The server has one core and the load another. The mix is a Zipf distribution
over 200 detectors, by 16 connections, with `AE_MODEL_MEMORY` for some of them. `cookies 1` is
`train cookies` with one memory bank: `--set detector.sizes=[256] --set
detector.candidates=['neighbours'] --set detector.map='neighbours'`.

{serving.density(_read(results, "density")) or UNMEASURED}

### Under attack

`python -m benchmarks.soak docs/cookie.jpg`: good, bad, slow, unread and abandoned requests at once,
while the largest detector is replaced every 20 seconds. A response is wrong if it differs from the
one before the load. Statuses 503 and 504 are promised to slow clients.

{serving.soak(_read(results, "soak")) or UNMEASURED}
"""


def _read(results: Path, name: str) -> Any:
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _serving(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    return (
        f"![Requests a second of every server](results/serving.png)\n\n{serving.section(results)}"
    )


def _embeddings(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    lines = [
        "| vectors | length | 5-NN | linear probe | precision at 10 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, each in results.items():
        cells = [
            f"{100 * mean:.1f} ± {100 * deviation:.1f}"
            for mean, deviation in each["measured"].values()
        ]
        lines.append(f"| {name} | {each['length']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _models(results: dict[str, list[Run]]) -> str:
    lines = [
        "| recipe | measured | PCA | reference | goal | trained |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        done = results.get(row.recipe, [])
        measured = "; ".join(_metric(name, done) for name in row.metrics) if done else UNMEASURED
        pca = "; ".join(
            _metric(name, done, "pca_")
            for name in row.metrics
            if done and f"pca_{name}" in done[0]["metrics"]
        )
        link = f"[`{row.recipe}`](../training/recipes/{row.recipe}.toml)"
        trained = _trained(done, row.recipe)
        lines.append(f"| {link} | {measured} | {pca} | {row.reference} | {row.goal} | {trained} |")
    models = {name for name in recipes.available() if isinstance(recipe.load(name), Recipe)}
    missing = models - {"folder"} - {row.recipe for row in ROWS}
    assert not missing, f"the table lacks {missing}"
    return "\n".join(lines)


def _metric(name: str, done: list[Run], prefix: str = "") -> str:
    values = [run["metrics"][prefix + name] for run in done]
    factor, digits, unit = 1, 2, ""
    if name == "mse":
        digits = 6
    elif name == "accuracy":
        factor, unit = 100, " %"
    elif name == "psnr":
        unit = " dB"
    elif name == "ssim":
        digits = 4
    else:
        unit = " nats"
    return f"{NAMES[name]} {_spread([factor * value for value in values], digits)}{unit}"


def _spread(values: list[float], digits: int) -> str:
    """Mean and, of several values, standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _trained(done: list[Run], name: str) -> str:
    if not done:
        return ""
    current = runs.is_of(done[0]["recipe"], recipe.load_network(name))
    changed = "" if current else ", with other settings than the recipe's"
    minutes = statistics.mean(run["minutes"] for run in done)
    devices = " and ".join(sorted({run["device"] for run in done}))
    count = f"{len(done)} seeds" if len(done) > 1 else "one run"
    return f"{minutes:.1f} min, {devices}, {count}{changed}"


def _labels(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    accuracy = results["accuracy"]
    lines = ["| labels | " + " | ".join(accuracy) + " |", "| --- |" + " --- |" * len(accuracy)]
    for count in next(iter(accuracy.values())):
        cells = [
            f"{_spread([100 * value for value in runs[count]], 2)} %" for runs in accuracy.values()
        ]
        lines.append(f"| {int(count):,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _fp16(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    lines = [
        "| model | latents | intensities | grey levels | MSE | score change, median / largest"
        " | other verdicts |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in results.items():
        if "refused" in each:
            lines.append(f"| {name} | refused: {each['refused']} | | | | | |")
            continue
        parity, (before, after) = each["parity"], each["mse"]
        cells = [
            f"{parity['latents']:.5f}",
            f"{parity['intensities']:.4f}",
            f"{parity['reconstructions']:.0f}",
            f"{before:.6f} → {after:.6f}",
            f"{100 * each['score_change_median']:.2f} %"
            f" / {100 * each['score_change_largest']:.1f} %",
            f"{100 * each['verdicts_changed_at_0.01']:.2f} %",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bulk(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    images, model, cores = (results[name] for name in ("images", "model", "cores"))
    return f"""{images:,} PNGs of 28x28 pixels, `{model}`, {cores} cores.

| | images a second |
| --- | --- |
| in bulk | {results["bulk"]:,.0f} |
| bare session | {results["bare"]:,.0f} |
| reading and decoding | {results["decoding"]:,.0f} |

The killed run left {results["rows_left"]:,} rows. The resumed run completed the table, with
{results["rows_lost"]} rows lost and {results["rows_doubled"]} doubled."""


def _bulk_ray(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    images, model, cores = (results[name] for name in ("images", "model", "cores"))
    return f"""{images:,} PNGs of 28x28 pixels, `{model}`, {cores} cores.

| engine | images a second | seconds to start |
| --- | --- | --- |
| local | {results["local"]:,.0f} | {results["local_start_seconds"]:.1f} |
| one actor of Ray | {results["ray"]:,.0f} | {results["ray_start_seconds"]:.1f} |

The actor has {results["ray_over_local"]:.2f} of the local rate. After {results["kills"]} kills, the
table had {results["rows_lost"]} rows lost and {results["rows_doubled"]} doubled."""


def _speed(results: dict[str, Any]) -> str:
    if not results:
        return UNMEASURED
    lines = [
        f"On {results['device']}.",
        "",
        "| recipe | ours | bare loop | ours / bare | DataLoader loop | ours / DataLoader |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rates in results["images_per_second"].items():
        ours, bare, loader = rates["ours"], rates["bare"], rates["dataloader"]
        lines.append(
            f"| `{name}` | {ours:,.0f} | {bare:,.0f} | {ours / bare:.2f} | {loader:,.0f}"
            f" | {ours / loader:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
