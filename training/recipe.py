"""Recipes: one complete, typed TOML file for each model."""

import difflib
import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from bundle.manifest import InputSpec, ModelName
from training.architectures import ArchitectureConfig
from training.architectures.backbones import BackboneName
from training.config import Config, Size
from training.data.augmentation import AugmentationConfig, CorruptionConfig
from training.data.dataset import DataConfig
from training.data.image_set import PhotoInput
from training.detector.config import DetectorConfig
from training.errors import RecipeError
from training.image_ops import SSIM_WINDOW
from training.recipes import RECIPES, available
from training.trainer.config import ClassifierConfig, PretrainingConfig, TrainingConfig
from training.trainer.losses import LIKELIHOODS, LossConfig
from training.trainer.optimisers import OptimiserConfig, ScheduleConfig


class EvaluationConfig(Config):
    """Estimation of the likelihood of a variational model, which takes minutes."""

    importance_samples: NonNegativeInt = 0
    """Samples of the posterior for each image; 0: no estimate."""
    images: PositiveInt = 1000
    """Number of test images, from the first."""


class Recipe(Config):
    """A network that is trained."""

    name: ModelName
    """Name of the model."""
    description: str
    """Description of the model, for its card."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the random generators."""
    input: InputSpec
    """Format of the images, to which others are converted."""
    data: DataConfig
    """Data set, and the held-out images."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random distortions of the training images."""
    corruption: CorruptionConfig = CorruptionConfig()
    """Corruption of the network's input, which it learns to remove."""
    architecture: ArchitectureConfig
    """Architecture of the network."""
    loss: LossConfig = LossConfig()
    """Loss of the training."""
    training: TrainingConfig
    """Length, batches and precision of the training."""
    optimiser: OptimiserConfig
    """Optimiser of the training."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Schedule of the learning rate."""
    pretraining: PretrainingConfig | None = None
    """Layer-wise pre-training of a dense network; unset: none."""
    classifier: ClassifierConfig | None = None
    """Fine-tuning as a classifier; unset: no `classify`."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Estimation of the likelihood."""
    mixture_components: NonNegativeInt = 10
    """Components of the prior that is fitted to the latents of a network that is not variational.

    0: no prior, and no `sample`.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_former_entries(cls, entries: Any) -> Any:
        """Drop `anomaly = null`, which manifests of older networks hold."""
        if isinstance(entries, dict) and "anomaly" in entries and entries["anomaly"] is None:
            return {name: value for name, value in entries.items() if name != "anomaly"}
        return entries

    @model_validator(mode="after")
    def _follows_rules(self) -> Self:
        for rule in RULES:
            if problem := rule(self):
                raise ValueError(problem)
        return self

    @property
    def has_likelihood(self) -> bool:
        """True if the likelihood of images can be estimated."""
        return self.architecture.variational and self.loss.is_likelihood

    def fingerprint(self, *others: object) -> str:
        """SHA-256 of everything that determines the weights, which names the checkpoints.

        `others` are such values outside the recipe.
        """
        irrelevant: Any = {
            "description": True,
            "mixture_components": True,
            "evaluation": True,
            "data": {"outliers"},
        }
        entries = [self.model_dump_json(exclude=irrelevant), *map(str, others)]
        return hashlib.sha256("\n".join(entries).encode()).hexdigest()


def _takes_a_folder(recipe: Recipe) -> str | None:
    if recipe.data.dataset == "photographs":
        return "data.dataset photographs is for detectors; a network takes a folder"
    return None


def _output_suits_the_loss(recipe: Recipe) -> str | None:
    needed, output = LIKELIHOODS.get(recipe.loss.kind), recipe.architecture.output
    if needed and output != needed:
        return f"loss.kind {recipe.loss.kind} needs architecture.output {needed}"
    if output == "continuous-bernoulli" and needed != output:
        return f"architecture.output {output} needs loss.kind continuous-bernoulli"
    return None


def _divergence_and_likelihood_need_a_posterior(recipe: Recipe) -> str | None:
    if recipe.loss.beta != 1 and not recipe.architecture.variational:
        return "loss.beta weighs a divergence that only a variational architecture has"
    for entry, is_set in (
        ("loss.samples above 1", recipe.loss.samples > 1),
        ("evaluation.importance_samples", recipe.evaluation.importance_samples > 0),
    ):
        if is_set and not recipe.has_likelihood:
            return f"{entry} needs a variational architecture and a likelihood"
    return None


def _pretraining_has_layers(recipe: Recipe) -> str | None:
    dense = recipe.architecture.kind in ("dense", "residual-dense")
    if recipe.pretraining and (not dense or recipe.architecture.variational):
        return "pretraining needs a dense architecture that is not variational"
    return None


def _classifier_suits_the_network(recipe: Recipe) -> str | None:
    if recipe.classifier is None:
        return None
    if recipe.architecture.variational or recipe.data.binarise:
        return "classifier needs an architecture that is not variational, and data.binarise = false"
    refined = recipe.architecture.kind == "residual-dense" and recipe.architecture.refinement
    if refined and not recipe.classifier.reconstruction:
        return (
            "architecture.refinement needs a decoder that is trained: set classifier.reconstruction"
            " above 0"
        )
    return None


def _ssim_fits_the_input(recipe: Recipe) -> str | None:
    measured = recipe.loss.kind == "ssim" or recipe.corruption.sigma
    if measured and min(recipe.input.height, recipe.input.width) < SSIM_WINDOW:
        return f"input: SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels"
    return None


# Rules across tables; each returns the problem, or None.
RULES: tuple[Callable[[Recipe], str | None], ...] = (
    _takes_a_folder,
    _output_suits_the_loss,
    _divergence_and_likelihood_need_a_posterior,
    _pretraining_has_layers,
    _classifier_suits_the_network,
    _ssim_fits_the_input,
)


class DetectorRecipe(Config):
    """A detector of anomalies: score components, fitted in closed form to features of images."""

    name: ModelName
    """Name of the model."""
    description: str
    """Description of the model, for its card."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the random generators."""
    input: PhotoInput = PhotoInput()
    """Format that photographs are converted to."""
    data: DataConfig
    """Data set, and the held-out images."""
    detector: DetectorConfig
    """Encoder, candidates and trials."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        grey = self.detector.encoder == "scattering"
        if grey != (self.input.channels == 1):
            raise ValueError(
                f"input.channels must be {1 if grey else 3} for the encoder {self.detector.encoder}"
            )
        if self.data.dataset == "folder":
            raise ValueError("data.dataset is folder, but a detector takes photographs")
        return self

    def spec(self, size: Size) -> InputSpec:
        """The input of the graphs at a working size (height, width)."""
        return self.input.spec(size)


class EmbeddingConfig(Config):
    """The backbone of embeddings, and its input."""

    backbone: BackboneName
    """Network, trained elsewhere, whose feature map is used."""
    depth: PositiveInt
    """Stride of the feature map that is pooled: 4, 8, 16 or 32."""
    size: Size
    """Working size; a number is a square, a pair is height and width."""


class EmbeddingRecipe(Config):
    """Embeddings of photographs: the pooled feature map of a backbone, with nothing trained."""

    name: ModelName
    """Name of the model."""
    description: str
    """Description of the model, for its card."""
    input: PhotoInput = PhotoInput()
    """Format that photographs are converted to."""
    embedding: EmbeddingConfig
    """Backbone, feature map and working size."""


AnyRecipe = Recipe | DetectorRecipe | EmbeddingRecipe


def find_recipe_type(tree: Mapping[str, Any]) -> type[AnyRecipe]:
    """Type of the recipe in a document, by its tables."""
    if "detector" in tree:
        return DetectorRecipe
    return EmbeddingRecipe if "embedding" in tree else Recipe


def load(name_or_path: str, overrides: Sequence[str] = (), name: str | None = None) -> AnyRecipe:
    """Read a recipe by its name or path, with `key=value` overrides (dotted keys, TOML values).

    Raises RecipeError, which names the invalid entry and, if it is unknown, a similar one.
    """
    path = _find(name_or_path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, or no TOML
        raise RecipeError(f"{name_or_path} is not TOML: {error}") from error
    for override in overrides:
        _apply(tree, override)
    if name is not None:
        tree["name"] = name
    recipe_type = find_recipe_type(tree)
    try:
        return recipe_type.model_validate(tree)
    except ValidationError as error:
        explained = [_explain(each, recipe_type) for each in error.errors()]
        raise RecipeError("\n".join([f"recipe {name_or_path}:", *explained])) from error


def load_network(
    name_or_path: str, overrides: Sequence[str] = (), name: str | None = None
) -> Recipe:
    """Read the recipe of a network, as `load`. Raises RecipeError if it is of another type."""
    loaded = load(name_or_path, overrides, name)
    if not isinstance(loaded, Recipe):
        raise RecipeError(
            f"{name_or_path} is not the recipe of a network: choose one with [architecture]"
        )
    return loaded


def _find(name_or_path: str) -> Path:
    for path in (Path(name_or_path), RECIPES / f"{name_or_path}.toml"):
        if path.is_file():
            return path
    names = available()
    raise RecipeError(
        f"no recipe {name_or_path!r}{_nearest(name_or_path, names)}; there are: {', '.join(names)}"
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key=value, not {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"--set {override}: {parent} is a value, not a table")
    tree[last] = value


def _explain(error: Any, root: type[AnyRecipe]) -> str:
    """A line on one error of pydantic."""
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        names, tables = _locate(parents, root)
        entry = ".".join([*names, str(key)])
        hint = _nearest(str(key), _list_entries(tables)) or _find_elsewhere(str(key), root)
        return f"  {entry}: there is no such entry{hint}"
    entry = ".".join(_locate(error["loc"], root)[0])
    value = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"  {entry or 'the recipe'}: {error['msg'].removeprefix('Value error, ')}{value}"


def _locate(
    location: Sequence[int | str], root: type[AnyRecipe]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Names on the path to an entry, and the tables there.

    The names leave out kinds, which pydantic inserts.
    """
    names: list[str] = []
    tables: list[type[BaseModel]] = [root]
    for part in map(str, location):
        of_kind = [
            table
            for table in tables
            if part in get_args(getattr(table.model_fields.get("kind"), "annotation", ()))
        ]
        if not of_kind:
            names.append(part)
        tables = of_kind or [child for table in tables for child in _children(table).get(part, [])]
    return names, tables


def _children(table: type[BaseModel]) -> dict[str, list[type[BaseModel]]]:
    """Entries of a table, and the tables that each may hold."""
    kinds = {
        name: get_args(field.annotation) or (field.annotation,)
        for name, field in table.model_fields.items()
    }
    return {
        name: [kind for kind in every if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for name, every in kinds.items()
    }


def _list_entries(tables: Sequence[type[BaseModel]]) -> list[str]:
    return sorted({name for table in tables for name in table.model_fields})


def _nearest(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _find_elsewhere(key: str, root: type[AnyRecipe]) -> str:
    """A hint to an entry of this name in another table, the nearest to the top."""
    level: list[tuple[str, type[BaseModel]]] = [("", root)]
    while level:
        for path, table in level:
            if key in table.model_fields:
                return f"; did you mean {path + key!r}?"
        level = [
            (f"{path}{name}.", child)
            for path, table in level
            for name, tables in _children(table).items()
            for child in tables
        ]
    return ""
