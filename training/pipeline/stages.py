"""The stages of a recipe, in the order in which they are trained."""

from training.architectures import Autoencoder, DenseAutoencoder
from training.architectures.base import ResidualLayer
from training.data.splits import Parts, balanced
from training.recipe import Recipe
from training.trainer.loop import Stage
from training.trainer.objectives import ClassificationObjective, LayerObjective, ReconstructionObjective
from training.trainer.optimisers import AdamwConfig


def stages(recipe: Recipe, network: Autoencoder, parts: Parts) -> list[Stage]:
    """Layer by layer, then the whole autoencoder, then with its classifier: those that the recipe asks for."""
    planned = [*_layers(recipe, network, parts)]
    if recipe.classifier is None or recipe.classifier.pretrained:
        objective = ReconstructionObjective(network, recipe, recipe.training)
        settings = recipe.training, recipe.optimiser, recipe.schedule
        planned.append(Stage("autoencoder", objective, *settings, parts.training, parts.validation))
    if recipe.classifier is not None:
        options = recipe.classifier
        labelled = parts.training if options.labels is None else balanced(parts.training, options.labels)
        supervised = ClassificationObjective(network, recipe, options.training)
        settings = options.training, options.optimiser, recipe.schedule
        planned.append(Stage("classifier", supervised, *settings, labelled, parts.validation))
    return planned


def _layers(recipe: Recipe, network: Autoencoder, parts: Parts) -> list[Stage]:
    options = recipe.pretraining
    if options is None:
        return []
    assert isinstance(network, DenseAutoencoder)  # the recipe allows no other
    of_layers = {"epochs": options.epochs, "batch_size": options.batch_size, "precision": "float32", "patience": None}
    training = recipe.training.model_copy(update=of_layers)
    optimiser = AdamwConfig(learning_rate=options.learning_rate)
    return [
        Stage(
            f"layer-{layer + 1}",
            LayerObjective(network, recipe, training, layer),
            training,
            optimiser,
            recipe.schedule,
            parts.training,
            parts.validation,
        )
        for layer, part in enumerate(network.encoder)
        if not isinstance(part, ResidualLayer)  # it begins as the identity, which gives back all there is
    ]
