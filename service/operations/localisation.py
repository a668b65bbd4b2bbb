"""Regions and pictures of an image's anomalies, from its error map."""

from dataclasses import dataclass

from bundle import heatmap, imaging
from bundle.heatmap import Region
from bundle.manifest import ErrorMapScale, InputSpec
from bundle.tensors import Floats, Pixels
from service.operations.values import Localised, Pictures


@dataclass(frozen=True)
class Localiser:
    """Locates anomalies for one model; draws the `pictures` that a request asks for."""

    spec: InputSpec
    scale: ErrorMapScale
    pictures: Pictures
    max_pixels: int

    def localise(
        self, image: bytes | Pixels, error_map: Floats, size: tuple[int, int]
    ) -> Localised:
        """The regions and pictures of an encoded image or of one at the model's size, at its own `size`."""
        regions = [self._enlarge(region, size) for region in heatmap.regions(error_map, self.scale)]
        brightness = imaging.resize(heatmap.heat(error_map, self.scale), size, self.spec)
        picture = overlay = None
        if self.pictures.heatmap:
            picture = imaging.encode_png(heatmap.in_colour(brightness))
        if self.pictures.overlay:
            if isinstance(image, bytes):
                image = imaging.decode_original(image, self.spec, self.max_pixels)
            overlay = imaging.encode_png(heatmap.draw(image, brightness, regions))
        return Localised(regions, picture, overlay)

    def _enlarge(self, region: Region, size: tuple[int, int]) -> Region:
        """The same box in pixels of an image of this size, rounded outwards."""
        down, across = size[0] / self.spec.height, size[1] / self.spec.width
        left, top = int(region.x * across), int(region.y * down)
        right = -int(-(region.x + region.width) * across // 1)
        bottom = -int(-(region.y + region.height) * down // 1)
        width, height = min(right, size[1]) - left, min(bottom, size[0]) - top
        return Region(left, top, width, height, region.score)
