"""Localisation of the anomalies of an image: regions and pictures, from its error map."""

from dataclasses import dataclass

from bundle import heatmap, imaging
from bundle.manifest import ErrorMapScale, InputSpec
from bundle.tensors import Floats, Pixels
from service.operations.values import Localisation, Pictures


@dataclass(frozen=True)
class Localiser:
    """Locates anomalies for one model, and draws the requested `pictures`."""

    spec: InputSpec
    scale: ErrorMapScale
    pictures: Pictures
    max_pixels: int

    def localise(
        self, image: bytes | Pixels, error_map: Floats, size: tuple[int, int]
    ) -> Localisation:
        """Return the regions and pictures of an image at its original size (height, width).

        The image is encoded, or pixels at the model's size.
        """
        regions = [
            region.scale(error_map.shape, size)
            for region in heatmap.find_regions(error_map, self.scale)
        ]
        brightness = imaging.resize(
            heatmap.compute_brightness(error_map, self.scale), size, self.spec
        )
        picture = overlay = None
        if self.pictures.heatmap:
            picture = imaging.encode_png(heatmap.apply_colours(brightness))
        if self.pictures.overlay:
            if isinstance(image, bytes):
                image = imaging.decode_original(image, self.spec, self.max_pixels)
            overlay = imaging.encode_png(heatmap.draw(image, brightness, regions))
        return Localisation(regions, picture, overlay)
