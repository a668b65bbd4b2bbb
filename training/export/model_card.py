"""The model card, a bundle's README.md."""

from collections.abc import Mapping

from bundle.manifest import ModelManifest
from training.export.calibration import CROSS_FITTED_SUFFIX
from training.export.published import REPORT


def render(manifest: ModelManifest) -> str:
    """The model card, in Markdown."""
    data, made = manifest.training_data, manifest.provenance
    images = ", ".join(f"{count:,} {name}" for name, count in data.images.items())
    fp16 = "; computes in float16" if manifest.precision == "float16" else ""
    size = manifest.input
    lines = [
        f"- Architecture: {manifest.architecture}; {manifest.latent_dim} latent dimensions{fp16}",
        f"- Input: {size.height}x{size.width}, {size.channels} channel(s)",
        f"- Capabilities: {', '.join(manifest.capabilities)}",
        *_render_calibration(manifest),
        f"- Data: {data.name}; {images + '; ' if images else ''}{data.source};"
        f" licence: {data.licence}",
        *_render_backbone(manifest),
        f"- Made {made.created:%Y-%m-%d} from git revision {made.git_revision or 'unknown'}",
        *(
            [f"- Trained in {made.minutes} minutes on {made.device}"]
            if made.minutes is not None
            else []
        ),
    ]
    differs = (
        "from the graphs in float32"
        if manifest.precision == "float16"
        else "between ONNX Runtime and torch"
    )
    sections = [
        f"# {manifest.name}, version {manifest.version}",
        f"{manifest.description}.",
        "\n".join(lines),
        *_render_pictures(manifest),
        *_render_trials(manifest),
        *_render_table(
            "## Test metrics, through the exported graphs",
            "metric",
            "value",
            manifest.metrics,
            ".6g",
        ),
        *_render_table(
            f"## Largest difference {differs}", "output", "difference", made.parity, ".2g"
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _render_calibration(manifest: ModelManifest) -> list[str]:
    calibration, made = manifest.calibration, manifest.provenance
    if calibration is None:
        return []
    nothing_held_out = manifest.training_data.images.get("validation") == 0
    cross_fitted = nothing_held_out or CROSS_FITTED_SUFFIX in calibration.method
    held_out = "training images, by cross-fitting" if cross_fitted else "held-out training images"
    calibrated_on = f"{len(calibration.scores):,} {held_out}"
    if again := made.recalibrated:
        calibrated_on = f"{again.images:,} other images, after training ({again.source} was not)"
    weak = manifest.selection.weak if manifest.selection else None
    return [
        f"- Anomaly score: {calibration.method}, calibrated on {calibrated_on}",
        *([f"- **Weak**: {weak}"] if weak else []),
    ]


def _render_backbone(manifest: ModelManifest) -> list[str]:
    weights = manifest.provenance.backbone
    if weights is None:
        return []
    return [
        f"- Backbone: {weights.name}, trained on {weights.trained_on}; weights: {weights.source};"
        f" licence: {weights.licence}"
    ]


def _render_pictures(manifest: ModelManifest) -> list[str]:
    if manifest.calibration is None:
        return []
    picture = "heatmaps" if "reconstruct" not in manifest.capabilities else "reconstructions"
    return [
        f"[The report]({REPORT}/index.html) shows it in pictures.",
        f"![The model at work]({REPORT}/{picture}.png)",
    ]


def _render_trials(manifest: ModelManifest) -> list[str]:
    selection = manifest.selection
    if selection is None or not selection.synthetic:
        return []
    kinds = [*next(iter(selection.synthetic.values()))]
    head = f"| | {' | '.join(kinds)} |\n| --- |{' --- |' * len(kinds)}"
    areas, shares = (
        [
            f"| {name} | {' | '.join(f'{of[kind]:.3f}' for kind in kinds)} |"
            for name, of in each.items()
        ]
        for each in (selection.synthetic, selection.recall)
    )
    return [
        "## Synthetic anomalies in held-out normal images",
        "AUROC by candidate:",
        "\n".join([head, *areas]),
        "Share found, by false positive rate:",
        "\n".join([head, *shares]),
        *([" ".join(selection.advice)] if selection.advice else []),
    ]


def _render_table(
    title: str, name: str, value: str, numbers: Mapping[str, float], form: str
) -> list[str]:
    if not numbers:
        return []
    rows = [f"| {key} | {number:{form}} |" for key, number in numbers.items()]
    return [title, "\n".join([f"| {name} | {value} |", "| --- | --- |", *rows])]
