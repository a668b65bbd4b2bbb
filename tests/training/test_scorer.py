"""Which evidence a score is made of, and how it is added up."""

import torch
from torch import Tensor

from service.manifest import Selection
from tests.training.conftest import cookies
from training import scorer
from training.evidence import Evidence, EvidenceName, Scene
from training.scorer import Readings, Scorer


class Brightness(Evidence):
    """A stand-in: the mean of each image, and its grey as the map."""

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        return scene.images.mean(dim=(1, 2, 3)), scene.images.mean(dim=1)


class Nothing(Evidence):
    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        return torch.zeros(len(scene.images)), None


def readings(shift: float, generator: torch.Generator, maps: bool = True) -> Readings:
    count = 200
    numbers = torch.randn(count, generator=generator) + shift
    grid = torch.randn(count, 8, 8, generator=generator) + shift
    return Readings(numbers, grid if maps else None)


def test_the_evidence_that_tells_strange_images_apart_is_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    names: tuple[EvidenceName, ...] = ("pixels", "gradients", "latents")
    normal = {name: readings(0, generator, name != "latents") for name in names}
    strange = {
        "pixels": readings(0, generator),
        "gradients": readings(3, generator),
        "latents": readings(0, generator, maps=False),
    }
    choice = scorer.choose(normal, strange, torch.ones(200, 8, 8))  # type: ignore[arg-type]
    assert choice.score == ("gradients",)
    assert choice.map == ("gradients",)
    assert choice.compared["image_auroc_gradients"] > 0.95
    assert 0.4 < choice.compared["image_auroc_pixels"] < 0.6
    assert "pixel_auroc_latents" not in choice.compared


def test_what_is_still_normal_when_it_is_turned_does_not_decide() -> None:
    """Kind 0 is as normal images are but for luck, which one evidence has more of; kind 1 is told by the other."""
    generator = torch.Generator().manual_seed(0)
    normal: dict[EvidenceName, Readings] = {name: readings(0, generator) for name in ("pixels", "gradients")}
    kinds = torch.arange(200) % 2
    strange: dict[EvidenceName, Readings] = {}
    for name, shifts in (("pixels", (1.5, 0.0)), ("gradients", (0.0, 4.0))):
        numbers = torch.randn(200, generator=generator) + torch.tensor(shifts)[kinds]
        strange[name] = Readings(numbers, normal[name].maps)
    masks = torch.cat([torch.ones(200, 4, 8), torch.zeros(200, 4, 8)], dim=1)
    assert scorer.choose(normal, strange, masks).score != ("gradients",)
    assert scorer.choose(normal, strange, masks, kinds).score == ("gradients",)


def test_where_all_are_equally_good_more_kinds_share_the_decision() -> None:
    generator = torch.Generator().manual_seed(0)
    names: tuple[EvidenceName, ...] = ("pixels", "gradients", "latents")
    normal = {name: readings(0, generator) for name in names}
    strange = {name: readings(100, generator) for name in names}
    choice = scorer.choose(normal, strange, torch.ones(200, 8, 8))
    assert set(choice.score) == set(choice.map) == set(names)


def test_scores_are_in_standard_deviations_of_normal_images() -> None:
    images = cookies()
    evidence: dict[EvidenceName, Evidence] = {"pixels": Brightness(), "latents": Nothing()}
    scales = scorer.scales({"pixels": Readings(*Brightness()(Scene(images, images, images)))})
    graph = Scorer(evidence, scales, Selection(score=("pixels",), map=("pixels",), compared={}))
    given = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    intensities = images.permute(0, 2, 3, 1)
    errors, scores, maps, distances = graph(given, intensities, torch.zeros(6, 1))
    assert errors.abs().max() < 1e-6
    assert scores.mean().abs() < 1e-3
    assert abs(float(scores.std()) - 1) < 1e-3
    assert maps.shape == (6, 64, 48)
    assert maps.min() >= 0
    assert distances.tolist() == [0.0] * 6
    assert "pixels" in graph.describe()
