"""Plans from a whole recipe: the stages of its training, and the evaluation of its model."""

from training.architectures import Autoencoder, Classifier, DenseAutoencoder
from training.architectures.base import ResidualLayer
from training.data.augmentation import RandomChanges
from training.data.splits import TrainingSplits, take_balanced
from training.evaluation.autoencoder_results import EvaluationSettings
from training.recipe import Recipe
from training.trainer.config import ClassifierConfig, PretrainingConfig
from training.trainer.loop import Stage
from training.trainer.objectives import (
    ClassificationObjective,
    LayerObjective,
    ReconstructionObjective,
)
from training.trainer.optimisers import AdamwConfig


def plan_stages(
    recipe: Recipe, network: Autoencoder | Classifier, splits: TrainingSplits
) -> list[Stage]:
    """Plan the stages of a recipe: layers, then the autoencoder, then the classifier."""
    autoencoder = network.autoencoder if isinstance(network, Classifier) else network
    planned: list[Stage] = []
    if recipe.pretraining is not None and isinstance(autoencoder, DenseAutoencoder):
        planned += _plan_layers(recipe, recipe.pretraining, autoencoder, splits)
    if recipe.classifier is None or recipe.classifier.pretrained:
        planned.append(_plan_reconstruction(recipe, autoencoder, splits))
    if recipe.classifier is not None and isinstance(network, Classifier):
        planned.append(_plan_classification(recipe, recipe.classifier, network, splits))
    return planned


def plan_evaluation(recipe: Recipe) -> EvaluationSettings:
    """Plan the measurements on the test images."""
    return EvaluationSettings(
        seed=recipe.seed,
        noise=recipe.corruption.sigma,
        binarise=recipe.data.binarise,
        likelihood=recipe.loss if recipe.has_likelihood else None,
        importance_samples=recipe.evaluation.importance_samples,
        likelihood_images=recipe.evaluation.images,
        classify=recipe.classifier is not None,
        mixture_components=recipe.mixture_components,
    )


def _plan_reconstruction(recipe: Recipe, network: Autoencoder, splits: TrainingSplits) -> Stage:
    mixed = recipe.training.precision == "bfloat16"
    objective = ReconstructionObjective(network, _build_changes(recipe), recipe.loss, mixed)
    settings = recipe.training, recipe.optimiser, recipe.schedule
    return Stage("autoencoder", objective, *settings, splits.training, splits.validation)


def _plan_classification(
    recipe: Recipe, config: ClassifierConfig, network: Classifier, splits: TrainingSplits
) -> Stage:
    labelled = (
        splits.training if config.labels is None else take_balanced(splits.training, config.labels)
    )
    objective = ClassificationObjective(network, _build_changes(recipe), recipe.loss, config)
    settings = config.training, config.optimiser, recipe.schedule
    return Stage("classifier", objective, *settings, labelled, splits.validation)


def _build_changes(recipe: Recipe) -> RandomChanges:
    return RandomChanges(recipe.augmentation, recipe.corruption, recipe.data.binarise)


def _plan_layers(
    recipe: Recipe, config: PretrainingConfig, network: DenseAutoencoder, splits: TrainingSplits
) -> list[Stage]:
    settings = {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "precision": "float32",
        "patience": None,
    }
    training = recipe.training.model_copy(update=settings)
    optimiser = AdamwConfig(learning_rate=config.learning_rate)
    return [
        Stage(
            f"layer-{layer + 1}",
            LayerObjective(network, layer),
            training,
            optimiser,
            recipe.schedule,
            splits.training,
            splits.validation,
        )
        for layer, module in enumerate(network.encoder)
        if not isinstance(module, ResidualLayer)  # begins as the identity, which loses nothing
    ]
