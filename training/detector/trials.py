"""Trials: candidates for a detector, fitted and scored on normal images and on synthetic anomalies in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle import imaging
from bundle.manifest import InputSpec
from training import progress
from training.config import Size
from training.detector import fitters, selection, synthetic_anomalies
from training.detector.components import BASELINES, MEMORY_BANKS, ComponentName, Names
from training.detector.config import DetectorConfig
from training.detector.cross_fitting import Scores, cross_score, folds
from training.detector.encoder import STRIDES
from training.detector.scene import Images, SceneReader, Scenes
from training.detector.selection import Outcome
from training.detector.synthetic_anomalies import SyntheticAnomalies
from training.detector.threads import in_threads
from training.progress import Log

OF_EACH_KIND = 30  # synthetic anomalies
FOLDS = 5  # of the trials
FEWEST_LOCAL = 25  # images: fewer do not show what varies at one position
PATCHES_AN_ENTRY = 10  # patches of all images for each entry of a memory bank, at the least

Open = Callable[[Size], SceneReader]  # the exported encoder of a working size


@dataclass(frozen=True)
class Choice:
    """A candidate: the working size, the components of its score, and the entries of a memory bank."""

    size: Size
    names: Names
    bank: int


class Step(NamedTuple):
    """A candidate that was tried, and its scores."""

    choice: Choice
    outcome: Outcome


@dataclass(frozen=True)
class Trials:
    """What was chosen, and the outcomes of all candidates at the first working size and of the chosen one.

    `steps` has the mean AUROC of each step that was looked at: a working size or a bank.
    """

    choice: Choice
    chosen: Outcome
    outcomes: Mapping[Names, Outcome]
    anomalies: SyntheticAnomalies
    steps: Mapping[str, float]

    @property
    def kinds(self) -> npt.NDArray[np.int64]:
        return self.anomalies.kinds


def stage_of(size: Size) -> str:
    """The name that a run shows while it tries candidates at a working size."""
    return f"trials at {size[0]}x{size[1]}"


class TrialRun:
    """Trials of one set of normal images, uint8 (n, height, width, channels), at the largest working size."""

    def __init__(
        self, normal: Images, spec: InputSpec, config: DetectorConfig, open_size: Open, seed: int
    ) -> None:
        self._normal, self._spec, self._config, self._open, self._seed = (
            normal,
            spec,
            config,
            open_size,
            seed,
        )
        self._anomalies = synthetic_anomalies.generate(normal, OF_EACH_KIND, config.extents, seed)
        self._folds = folds(len(normal), FOLDS, seed)

    def run(self, sizes: Sequence[Size], log: Log) -> Trials:
        """Choose the components at the first size; then a larger size and a larger bank where they clearly gain."""
        first, bank, candidates = sizes[0], self._config.banks[0], self._candidates()
        baselines: list[Names] = [(name,) for name in BASELINES if (name,) not in candidates]
        found = self._outcomes(first, bank, [*candidates, *baselines], log)
        names = selection.choose(
            {names: found[names] for names in candidates}, self._anomalies.kinds, self._seed
        )
        steps: dict[str, float] = {}
        taken = Step(Choice(first, names, bank), found[names])
        self._note(taken, steps, log)
        taken = self._climb(taken, [Choice(size, names, bank) for size in sizes[1:]], steps, log)
        taken = self._climb(taken, self._larger_banks(taken.choice), steps, log)
        return Trials(taken.choice, taken.outcome, found, self._anomalies, steps)

    def _candidates(self) -> Sequence[Names]:
        """Those of the recipe; of few images without the ones that know the image at a position from others, if any."""
        every = self._config.candidates
        anywhere = [names for names in every if "local-neighbours" not in names]
        return anywhere if anywhere and len(self._normal) < FEWEST_LOCAL else every

    def _climb(
        self, taken: Step, dearer: Sequence[Choice], steps: dict[str, float], log: Log
    ) -> Step:
        """The last of the dearer candidates, in order, each of which clearly gains over the one before."""
        for choice in dearer:
            step = Step(
                choice, self._outcomes(choice.size, choice.bank, [choice.names], log)[choice.names]
            )
            self._note(step, steps, log)
            if not selection.gains(step.outcome, taken.outcome, self._anomalies.kinds, self._seed):
                break
            taken = step
        return taken

    def _note(self, step: Step, steps: dict[str, float], log: Log) -> None:
        height, width = step.choice.size
        label = f"{' + '.join(step.choice.names)} at {height}x{width}, bank of {step.choice.bank}"
        steps[label] = selection.mean_auroc(step.outcome, self._anomalies.kinds)
        log(f"{label}: AUROC {steps[label]:.3f} on synthetic anomalies")

    def _larger_banks(self, choice: Choice) -> list[Choice]:
        """The same with larger banks, where it has a bank and there are patches enough."""
        if not {*MEMORY_BANKS} & {*choice.names}:
            return []
        height, width = choice.size
        patches = len(self._normal) * height * width // STRIDES[0] ** 2
        return [
            Choice(choice.size, choice.names, bank)
            for bank in self._config.banks[1:]
            if patches >= PATCHES_AN_ENTRY * bank
        ]

    def _outcomes(
        self, size: Size, bank: int, candidates: Sequence[Names], log: Log
    ) -> dict[Names, Outcome]:
        progress.begin(stage_of(size), log)
        reader, components = (
            self._open(size),
            dict.fromkeys(name for names in candidates for name in names),
        )
        keep = fitters.take_images(components)
        normal, anomalous = (
            self._read(reader, images, size, keep)
            for images in (self._normal, self._anomalies.images)
        )
        found: dict[ComponentName, tuple[Scores, Scores]] = {}
        for name in progress.step_through(components, log):
            of_normal, of_anomalous = cross_score(
                name, normal, self._folds, bank, self._seed, anomalous, self._anomalies.sources
            )
            assert of_anomalous is not None  # there are anomalies of all sources
            found[name] = of_normal, of_anomalous
        return {names: selection.outcome_of(names, found) for names in candidates}

    def _read(self, reader: SceneReader, images: Images, size: Size, keep_images: bool) -> Scenes:
        resized = in_threads(lambda image: imaging.resize(image, size, self._spec), images)
        return reader.read(np.stack(resized), keep_images)
