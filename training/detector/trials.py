"""Trials: candidates for a detector, scored on normal images and on synthetic anomalies in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle import imaging
from bundle.manifest import InputSpec
from bundle.tensors import Images
from training import progress
from training.config import Size
from training.detector import fitters, selection, synthetic_anomalies
from training.detector.components import BASELINES, MEMORY_BANKS, ComponentName, ComponentNames
from training.detector.config import DetectorConfig
from training.detector.cross_fitting import Scores, assign_folds, cross_score_anomalies
from training.detector.encoder import FEATURE_STRIDES
from training.detector.image_features import ExportedEncoder, ImageFeatures
from training.detector.selection import Outcome
from training.detector.synthetic_anomalies import SyntheticAnomalies
from training.detector.threads import map_in_threads
from training.progress import Log

ANOMALIES_PER_KIND = 30
TRIAL_FOLDS = 5
MIN_LOCAL_IMAGES = 25  # fewer do not show what varies at one position
MIN_PATCHES_PER_ENTRY = 10  # patches of all images for each entry of a memory bank

OpenEncoder = Callable[[Size], ExportedEncoder]  # of the exported encoder of a working size


@dataclass(frozen=True)
class Choice:
    """A candidate: working size, components of the score, and entries of a memory bank."""

    size: Size
    names: ComponentNames
    bank: int


class TrialStep(NamedTuple):
    """A candidate that was tried, and its outcome."""

    choice: Choice
    outcome: Outcome


@dataclass(frozen=True)
class Trials:
    """The chosen candidate, and the outcomes of all candidates at the first working size.

    `steps` has the mean AUROC of each working size and memory bank that was tried.
    """

    choice: Choice
    chosen: Outcome
    outcomes: Mapping[ComponentNames, Outcome]
    anomalies: SyntheticAnomalies
    steps: Mapping[str, float]

    @property
    def kinds(self) -> npt.NDArray[np.int64]:
        """Kinds (m,) of the synthetic anomalies."""
        return self.anomalies.kinds


def name_stage(size: Size) -> str:
    """Name the stage of a run that tries candidates at a working size."""
    return f"trials at {size[0]}x{size[1]}"


class DetectorSearch:
    """Trials on normal images, uint8 (n, height, width, channels) at the largest working size."""

    def __init__(
        self,
        normal: Images,
        spec: InputSpec,
        config: DetectorConfig,
        open_encoder: OpenEncoder,
        seed: int,
    ) -> None:
        self._normal, self._spec, self._config = normal, spec, config
        self._open_encoder, self._seed = open_encoder, seed
        self._anomalies = synthetic_anomalies.generate(
            normal, ANOMALIES_PER_KIND, config.extents, seed
        )
        self._folds = assign_folds(len(normal), TRIAL_FOLDS, seed)

    def run(self, sizes: Sequence[Size], log: Log) -> Trials:
        """Choose components at the first size; then a larger size or bank, if it clearly gains."""
        first, bank, candidates = sizes[0], self._config.banks[0], self._list_candidates()
        baselines: list[ComponentNames] = [
            (name,) for name in BASELINES if (name,) not in candidates
        ]
        outcomes = self._try(first, bank, [*candidates, *baselines], log)
        names = selection.choose(
            {names: outcomes[names] for names in candidates}, self._anomalies.kinds, self._seed
        )
        steps: dict[str, float] = {}
        taken = TrialStep(Choice(first, names, bank), outcomes[names])
        self._record(taken, steps, log)
        taken = self._try_costlier(
            taken, [Choice(size, names, bank) for size in sizes[1:]], steps, log
        )
        taken = self._try_costlier(taken, self._list_larger_banks(taken.choice), steps, log)
        return Trials(taken.choice, taken.outcome, outcomes, self._anomalies, steps)

    def _list_candidates(self) -> Sequence[ComponentNames]:
        """The candidates of the recipe; for few images, without local neighbours if possible."""
        candidates = self._config.candidates
        others = [names for names in candidates if "local-neighbours" not in names]
        return others if others and len(self._normal) < MIN_LOCAL_IMAGES else candidates

    def _try_costlier(
        self, taken: TrialStep, costlier: Sequence[Choice], steps: dict[str, float], log: Log
    ) -> TrialStep:
        """Take costlier candidates, in order, while each clearly gains over the one before."""
        for choice in costlier:
            outcomes = self._try(choice.size, choice.bank, [choice.names], log)
            step = TrialStep(choice, outcomes[choice.names])
            self._record(step, steps, log)
            if not selection.gains(step.outcome, taken.outcome, self._anomalies.kinds, self._seed):
                break
            taken = step
        return taken

    def _record(self, step: TrialStep, steps: dict[str, float], log: Log) -> None:
        height, width = step.choice.size
        label = f"{' + '.join(step.choice.names)} at {height}x{width}, bank of {step.choice.bank}"
        steps[label] = selection.mean_auroc(step.outcome, self._anomalies.kinds)
        log(f"{label}: AUROC {steps[label]:.3f} on synthetic anomalies")

    def _list_larger_banks(self, choice: Choice) -> list[Choice]:
        """The candidate with larger banks, if it has a bank and there are enough patches."""
        if not {*MEMORY_BANKS} & {*choice.names}:
            return []
        height, width = choice.size
        patches = len(self._normal) * height * width // FEATURE_STRIDES[0] ** 2
        return [
            Choice(choice.size, choice.names, bank)
            for bank in self._config.banks[1:]
            if patches >= MIN_PATCHES_PER_ENTRY * bank
        ]

    def _try(
        self, size: Size, bank: int, candidates: Sequence[ComponentNames], log: Log
    ) -> dict[ComponentNames, Outcome]:
        """Score candidates at a working size, by cross-fitting."""
        progress.begin(name_stage(size), log)
        encoder = self._open_encoder(size)
        components = dict.fromkeys(name for names in candidates for name in names)
        keep = fitters.uses_images(components)
        normal, anomalous = (
            self._encode(encoder, images, size, keep)
            for images in (self._normal, self._anomalies.images)
        )
        scores: dict[ComponentName, tuple[Scores, Scores]] = {}
        for name in progress.step_through(components, log):
            scores[name] = cross_score_anomalies(
                name, normal, self._folds, bank, self._seed, anomalous, self._anomalies.sources
            )
        return {names: selection.combine_components(names, scores) for names in candidates}

    def _encode(
        self, encoder: ExportedEncoder, images: Images, size: Size, keep_images: bool
    ) -> ImageFeatures:
        resized = map_in_threads(lambda image: imaging.resize(image, size, self._spec), images)
        return encoder.encode(np.stack(resized), keep_images)
