"""From a trained network to a scorer whose evidence was chosen, and to calibration scores where images are few."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training import data, evidence, scorer, synthetic
from training.architectures import Autoencoder
from training.chance import to_float
from training.data import Images, Parts, Split, Tell
from training.errors import RecipeError
from training.evidence import Evidence, EvidenceName, Scene
from training.recipe import Recipe
from training.scorer import Readings, Scorer
from training.similarity import reduced

BATCH = 32
LOOKED_AT = 500  # held-out images that a choice is made on
TRIALS = 4  # synthetic anomalies in each held-out image, at least 400 in all
FEWEST_TRIALS = 400
SMALLEST = 0.005  # part of an image that has to be changed

FEWEST_CALIBRATED, FEWEST_VALIDATED = 50, 20  # images that are held out, and shares of many images
SHARE_CALIBRATED, SHARE_VALIDATED = 4, 10

Train = Callable[[Parts, str, int], Autoencoder]


class Scores(NamedTuple):
    """Scores (n,), maps (n, height, width) and latent distances (n,) of images."""

    scores: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    latent_distances: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detector:
    """A network in evaluation mode, its scorer, and where no images were held out the scores to calibrate by."""

    network: Autoencoder
    scorer: Scorer
    held_out: Scores | None


@dataclass(frozen=True)
class _Witness:
    """What the evidence of one network says of images that it was not trained on."""

    normal: dict[EvidenceName, Readings]
    strange: dict[EvidenceName, Readings]
    masks: Tensor
    kinds: Tensor | None


def part(recipe: Recipe, images: Split) -> Parts:
    """Hold images out, of many more, up to what the recipe says; of few images none, for they all take turns."""
    wanted, count = recipe.data, len(images)
    if count < 3 * min(FEWEST_CALIBRATED, wanted.calibration):
        none = images.take(np.arange(0))
        return Parts(images, none, none)
    calibration = min(wanted.calibration, max(FEWEST_CALIBRATED, count // SHARE_CALIBRATED))
    validation = min(wanted.validation, max(FEWEST_VALIDATED, count // SHARE_VALIDATED))
    held_out = wanted.model_copy(update={"calibration": calibration, "validation": validation})
    return data.split(images, held_out, recipe.seed)


def folds(images: Split, count: int, seed: int) -> Iterator[Parts]:
    """Parts of which each holds out another share of the images, by chance."""
    order = np.random.default_rng(seed).permutation(len(images))
    for share in np.array_split(order, count):
        kept, out = images.take(np.setdiff1d(order, share)), images.take(np.sort(share))
        yield Parts(kept, out, out)


def representative(recipe: Recipe, training: Images) -> Images:
    """The images that closed forms are fitted to: not more than are needed, and mirrored where they may be."""
    found = data.sample(training)
    if recipe.augmentation.mirror:
        found = np.concatenate([found, found[:, ::-1]])
        found = np.concatenate([found, found[:, :, ::-1]])
    return found


def fit(network: Autoencoder, recipe: Recipe, parts: Parts, tell: Tell) -> Detector:
    """Choose the evidence on the validation images."""
    tell("choosing the score by synthetic anomalies")
    found = gather(network, recipe, parts.training.images, len(parts.training))
    witness = _witness(network, found, recipe, parts.validation.images)
    return Detector(network, _chosen(recipe, found, [witness]), None)


def cross_fit(recipe: Recipe, images: Split, train: Train, tell: Tell) -> Detector:
    """Train once without each share of the images, which then is what was held out, and once with all.

    The scores of all images, each by the network that did not see it, are the calibration, and the evidence is chosen
    on the same images. It is near to cross-conformal prediction (Vovk 2015, section 2.2), where each fold's network
    also scores the images to come: here one network does, so that p-values are valid in as far as it scores as theirs
    do. What is fitted in closed form is therefore no finer than theirs, though there are more images.

    Raises RecipeError where there are too few images for so many folds.
    """
    assert recipe.anomaly is not None
    count = recipe.anomaly.folds
    if len(images) < 2 * count:
        raise RecipeError(f"anomaly.folds: {count} are too many for {len(images)} images")
    size = len(images) - -(-len(images) // count)
    fitted = []
    for index, parts in enumerate(folds(images, count, recipe.seed)):
        tell(f"fold {index + 1} of {count}: {len(parts.training)} images, and {len(parts.validation)} held out")
        network = train(parts, f"fold-{index + 1}", size)
        found = gather(network, recipe, parts.training.images, size)
        fitted.append((network, found, parts.validation, _witness(network, found, recipe, parts.validation.images)))
    tell(f"all {len(images)} images")
    network = train(Parts(images, images, images), "all", size)
    final = _chosen(recipe, gather(network, recipe, images.images, size), [witness for *_, witness in fitted])
    held_out = [scored(network, final.of(found), split.images) for network, found, split, _ in fitted]
    together = Scores(*(np.concatenate(parts) for parts in zip(*held_out, strict=True)))
    return Detector(network, final, together)


def gather(network: Autoencoder, recipe: Recipe, training: Images, fineness: int) -> dict[EvidenceName, Evidence]:
    """All kinds of evidence that the recipe names, and that of the latents, fitted to training images.

    They are no finer than `fineness` images allow.
    """
    assert recipe.anomaly is not None
    scenes = list(_scenes(network, representative(recipe, training)))
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        # The latents' always: drift is followed by it.
        names = dict.fromkeys((*recipe.anomaly.evidence, "latents"))
        return {name: evidence.build(name, network, scenes, generator, fineness) for name in names}


def _chosen(recipe: Recipe, found: Mapping[EvidenceName, Evidence], witnesses: list[_Witness]) -> Scorer:
    assert recipe.anomaly is not None
    normal, strange = (
        {name: _join([getattr(witness, side)[name] for witness in witnesses]) for name in recipe.anomaly.evidence}
        for side in ("normal", "strange")
    )
    masks = torch.cat([witness.masks for witness in witnesses])
    kinds = [witness.kinds for witness in witnesses if witness.kinds is not None]
    selection = scorer.choose(normal, strange, masks, torch.cat(kinds) if kinds else None)
    return Scorer(found, scorer.scales(normal), selection).eval()


def _join(readings: list[Readings]) -> Readings:
    maps = [each.maps for each in readings if each.maps is not None]
    return Readings(torch.cat([each.numbers for each in readings]), torch.cat(maps) if maps else None)


def _witness(network: Autoencoder, found: Mapping[EvidenceName, Evidence], recipe: Recipe, images: Images) -> _Witness:
    normal = images[:LOOKED_AT]
    repeated = np.concatenate([normal] * max(TRIALS, -(-FEWEST_TRIALS // len(normal))))[: TRIALS * LOOKED_AT]
    generator = torch.Generator().manual_seed(recipe.seed)
    assert recipe.anomaly is not None
    spoil = synthetic.deform if recipe.anomaly.trials == "defects" else synthetic.rearrange
    spoilt, changed, kinds = [], [], []
    for part in _batches(repeated):
        made = spoil(to_float(torch.from_numpy(part)), generator)
        masks = reduced(made.masks).squeeze(1)
        plain = masks.mean(dim=(1, 2)) >= SMALLEST  # where nothing is, nothing can be spoilt
        spoilt.append(made.images[plain].mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        changed.append(masks[plain])
        kinds += [] if made.kinds is None else [made.kinds[plain]]
    strange = _read(network, found, np.concatenate(spoilt))
    normal_found = _read(network, found, normal)
    return _Witness(normal_found, strange, torch.cat(changed), torch.cat(kinds) if kinds else None)


@torch.no_grad()
def _read(network: Autoencoder, found: Mapping[EvidenceName, Evidence], images: Images) -> dict[EvidenceName, Readings]:
    read: dict[EvidenceName, list[Readings]] = {name: [] for name in found}
    for scene in _scenes(network, images):
        for name, each in found.items():
            read[name].append(Readings(*each(scene)))
    return {name: _join(readings) for name, readings in read.items()}


@torch.no_grad()
def scored(network: Autoencoder, graph: Scorer, images: Images) -> Scores:
    """What a network in evaluation mode and its scorer say of images, uint8 (n, height, width, channels)."""
    found = []
    for part in _batches(images):
        given = torch.from_numpy(part)
        intensities = to_float(given)
        latents = network.encode(intensities).mean
        _, *of_part = graph(given, network.decode(latents).permute(0, 2, 3, 1), latents)
        found.append([each.numpy() for each in of_part])
    return Scores(*(np.concatenate(each) for each in zip(*found, strict=True)))


@torch.no_grad()
def _scenes(network: Autoencoder, images: Images) -> Iterator[Scene]:
    for part in _batches(images):
        seen = to_float(torch.from_numpy(part))
        latents = network.encode(seen).mean
        yield Scene(reduced(seen), reduced(network.decode(latents)), latents)


def _batches(images: Images) -> Iterator[Images]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))
