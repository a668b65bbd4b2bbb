import json
from pathlib import Path

import pytest

from training import recipe, recipes
from training.architectures.convolutional import ConvolutionalConfig
from training.errors import RecipeError

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", recipes.available())
def test_every_recipe_that_comes_with_the_package_is_valid(name: str) -> None:
    assert recipe.load(name).name == name.replace("classics/", "classic-").removeprefix("studies/")


def test_the_promised_recipes_are_there() -> None:
    digits = (
        "undercomplete",
        "stacked",
        "stacked-sigmoid",
        "denoising",
        "latent2",
        "vae",
        "classifier",
    )
    promised = {f"mnist-{name}" for name in digits} | {
        "fashion-latent3",
        "fashion-vae",
        "mnist-classifier-conv",
    }
    assert promised <= set(recipes.available())


@pytest.mark.parametrize(
    "name", [name for name in recipes.available() if name.startswith("studies/")]
)
def test_a_study_differs_from_its_recipe_in_the_pretraining_alone(name: str) -> None:
    study = recipe.load_network(name)
    studied = recipe.load_network(study.name.removesuffix("-greedy"))
    assert study.pretraining is not None
    own = {"name": studied.name, "description": studied.description, "pretraining": None}
    assert study.model_copy(update=own) == studied


def test_a_recipe_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((recipes.RECIPES / "mnist-vae.toml").read_text())
    assert recipe.load(str(path)) == recipe.load("mnist-vae")


def test_entries_can_be_overridden() -> None:
    changed = recipe.load_network(
        "mnist-vae",
        ["training.epochs=3", "loss.beta=0.5", "architecture.widths=[8, 16]", "description=mine"],
        "other",
    )
    assert (changed.training.epochs, changed.loss.beta, changed.name) == (3, 0.5, "other")
    assert isinstance(changed.architecture, ConvolutionalConfig)
    assert changed.architecture.widths == (8, 16)
    assert changed.description == "mine"


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        ("mnist-vea", [], "no recipe 'mnist-vea'; did you mean 'mnist-vae'"),
        (
            "mnist-vae",
            ["training.epoch=3"],
            "training.epoch: there is no such entry; did you mean 'epochs'",
        ),
        ("mnist-vae", ["sed=3"], "sed: there is no such entry; did you mean 'seed'"),
        (
            "mnist-vae",
            ["batch_size=3"],
            "batch_size: there is no such entry; did you mean 'training.batch_size'",
        ),
        ("mnist-vae", ["training.learning_rate=3"], "did you mean 'optimiser.learning_rate'"),
        ("mnist-classifier", ["labels=3"], "did you mean 'classifier.labels'"),
        ("mnist-vae", ["colour=3"], "colour: there is no such entry"),
        (
            "mnist-vae",
            ["optimiser.kind=muon", "optimiser.learning_rate=-1"],
            "  optimiser.learning_rate: Input should",
        ),
        (
            "mnist-vae",
            ["data.invalid_files=skip"],
            "data.invalid_files and test are for folders and photographs",
        ),
        ("mnist-vae", ["data.test=10"], "for folders and photographs, not for mnist"),
        ("folder", ["data.dataset=photographs"], "is for detectors; a network takes a folder"),
        ("folder", ["data.only=3"], "data.only is for mnist and fashion-mnist, not for folder"),
        ("mnist-vae", ["architecture.latent_dims=3"], "did you mean 'latent_dim'"),
        ("mnist-vae", ["training.epochs=0"], "training.epochs: Input should be greater than 0"),
        ("mnist-vae", ["architecture.kind=cubist"], "architecture: "),
        ("mnist-vae", ["epochs"], "--set takes key=value"),
        ("mnist-vae", ["seed.x=1"], "seed is a value, not a table"),
        ("mnist-vae", ["input.channels=2"], "input.channels"),
        (
            "mnist-vae",
            ["architecture.widths=[]"],
            "architecture.widths: Tuple should have at least 1 item",
        ),
        ("mnist-vae", ["loss.beta=nan"], "loss.beta: Input should be"),
        ("mnist-vae", ["schedule.warm_up=1.0"], "schedule.warm_up: Input should be less than 1"),
        ("mnist-vae", ["data.outliers=mnist"], "must be another data set"),
        ("mnist-undercomplete", ["loss.kind=bce"], "bce needs architecture.output sigmoid"),
        (
            "mnist-undercomplete",
            ["loss.kind=sim"],
            "loss.kind: Input should be 'mse', 'psnr', 'ssim'",
        ),
        (
            "mnist-undercomplete",
            ["optimiser.learning_rat=1"],
            "optimiser.learning_rat: there is no such entry; did you mean 'learning_rate'",
        ),
        ("mnist-undercomplete", ["optimiser.kind=adagrad"], "optimiser: "),
        ("mnist-undercomplete", ["loss.samples=5"], "needs a variational architecture"),
        ("mnist-vae", ["loss.samples=5", "loss.beta=0.5"], "only if loss.beta is 1"),
        (
            "mnist-undercomplete",
            ["architecture.output=continuous-bernoulli"],
            "needs loss.kind continuous-bernoulli",
        ),
        (
            "mnist-denoising",
            ["pretraining.epochs=1", "pretraining.learning_rate=1"],
            "needs a dense architecture",
        ),
        ("mnist-classifier-conv", ["architecture.code_channels=2"], "give either code_channels"),
        (
            "mnist-denoising",
            ["architecture.variational=true"],
            "a variational code is a latent vector",
        ),
        ("mnist-denoising", ["loss.beta=2"], "loss.beta weighs a divergence"),
        (
            "mnist-denoising",
            ["evaluation.importance_samples=5"],
            "needs a variational architecture and a likelihood",
        ),
        ("mnist-denoising", ["input.height=4"], "SSIM needs at least 7x7 pixels"),
        (
            "mnist-denoising",
            ["input.hight=4"],
            "input.hight: there is no such entry; did you mean 'height'",
        ),
        (
            "classics/mnist-vae",
            ["pretraining.epochs=1", "pretraining.learning_rate=1"],
            "that is not variational",
        ),
        ("mnist-classifier", ["data.binarise=true"], "and data.binarise = false"),
        (
            "mnist-stacked",
            ["architecture.widht=9"],
            "architecture.widht: there is no such entry; did you mean 'width'",
        ),
        (
            "mnist-classifier",
            ["classifier.training.epoch=1"],
            "classifier.training.epoch: there is no such entry; did",
        ),
    ],
)
def test_an_invalid_entry_is_named(name: str, overrides: list[str], complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.load(name, overrides)
    assert complaint in str(caught.value)


def test_an_entry_can_have_its_former_name() -> None:
    before, after = (
        recipe.load_network("folder", [f"data.{name}=skip"]) for name in ("unfit", "invalid_files")
    )
    assert before == after
    assert after.data.invalid_files == "skip"


@pytest.mark.parametrize("name", ["cookies", "folder"])
def test_the_recipe_of_a_manifest_with_the_former_name_is_still_read(name: str) -> None:
    current = recipe.load(name)
    stored = current.model_dump(mode="json")
    stored["data"]["unfit"] = stored["data"].pop("invalid_files")
    assert recipe.find_recipe_type(stored).model_validate(stored) == current


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/manifest.json")), ids=str)
def test_the_recipe_of_every_shipped_manifest_is_read(path: Path) -> None:
    stored = json.loads(path.read_text())["provenance"]["recipe"]
    loaded = recipe.find_recipe_type(stored).model_validate(stored)
    if not isinstance(loaded, recipe.EmbeddingRecipe):
        data = stored["data"]
        assert loaded.data.invalid_files == data.get("invalid_files", data.get("unfit"))


@pytest.mark.parametrize("name", ["photo-anomaly", "photos"])
def test_recipes_of_detectors_and_embeddings_are_none_of_a_network(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} is not the recipe of a network"):
        recipe.load_network(name)


def test_text_that_is_not_toml_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(RecipeError, match="is not TOML"):
        recipe.load(str(path))


def test_the_fingerprint_changes_with_the_recipe_and_the_data() -> None:
    plain, again = (recipe.load_network("mnist-vae") for _ in range(2))
    fingerprints = {
        plain.fingerprint("data", "cpu"),
        plain.fingerprint("data", "cuda"),
        recipe.load_network("mnist-vae", ["seed=1"]).fingerprint("data", "cpu"),
    }
    assert len(fingerprints) == 3
    assert plain.fingerprint("data", "cpu") == again.fingerprint("data", "cpu")
