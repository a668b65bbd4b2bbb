"""Pictures of what the models do."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from service.anomaly import heat
from training import bundle, data
from training.calibration import RECONSTRUCT, SCORE
from training.data import Images
from training.evaluation import add_noise

COLUMNS = 16
SAMPLE_SEED = 7


class Bundle(bundle.Published):
    """A published model, and what it makes of images."""

    def reconstruct(self, images: Images) -> Images:
        return self.graphs.chain(RECONSTRUCT, images=images)["reconstructions"].astype(np.uint8)

    def heatmaps(self, images: Images) -> Images:
        calibration = self.manifest.calibration
        assert calibration is not None  # every recipe calibrates
        maps = self.graphs.chain(SCORE, images=images)["error_maps"].astype(np.float32)
        return np.stack([heat(error_map, calibration.error_map) for error_map in maps])[..., None]

    def sample(self, count: int) -> Images:
        latents = self.prior.draw(count, SAMPLE_SEED, temperature=1.0)
        return self.graphs.chain(["decoder"], latents=latents)["reconstructions"].astype(np.uint8)


def overview(models: Path, directory: Path | None, output: Path) -> None:
    """Draw originals, reconstructions, denoised digits, samples, and an outlier's heatmap, as one PNG."""
    test = data.load("mnist", "t10k", directory).images
    digits = test[:COLUMNS]
    undercomplete, denoising, vae = (Bundle(models, f"mnist-{name}") for name in ("undercomplete", "denoising", "vae"))
    noisy = add_noise(digits, sigma=0.5)
    odd = _spoil(digits)
    rows = {
        "originals": digits,
        "reconstructed (784-256-784)": undercomplete.reconstruct(digits),
        "noisy": noisy,
        "denoised": denoising.reconstruct(noisy),
        "sampled (VAE)": vae.sample(COLUMNS),
        "spoilt by hand": odd,
        "heatmap (VAE)": vae.heatmaps(odd),
    }
    figure = Figure(figsize=(10, 0.83 * len(rows)), dpi=120, layout="constrained")
    for axes, (title, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axes.imshow(_strip(images), cmap="inferno" if "heatmap" in title else "gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=9, pad=2)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


def _spoil(images: Images) -> Images:
    """Each digit with a short stroke where none belongs."""
    spoilt = images.copy()
    spoilt[:, 4:8, 20:23] = 255
    return spoilt


def _strip(images: Images) -> Images:
    return np.concatenate(list(np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))), axis=1)
