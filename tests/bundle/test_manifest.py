from typing import Any

import pytest
from pydantic import ValidationError

from bundle.manifest import MANIFEST, Calibration, ErrorMapScale, InputSpec, ModelManifest
from tests.bundles import write_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    directory = write_bundle(tmp_path_factory.mktemp("models"), mixture=True)
    return ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"graphs": {"encoder": "encoder.onnx"}}, "needs the graph"),
        ({"prior": None}, "sample needs a prior"),
        ({"calibration": None}, "anomaly-score needs a calibration"),
        ({"classes": ()}, "classify needs at least two classes"),
        ({"classes": ("same", "same")}, "each with a name of its own"),
        ({"files": {}}, "files lacks the digest of"),
        ({"capabilities": ()}, "at least 1 item"),
        ({"capabilities": ("fly",)}, "Input should be 'encode'"),
        ({"golden": "../golden.npz"}, "should match pattern"),
        ({"golden": ".golden"}, "should match pattern"),
        ({"name": "a/b"}, "should match pattern"),
        ({"version": 0}, "greater than 0"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_an_inconsistent_manifest_is_refused(
    manifest: ModelManifest, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ModelManifest.model_validate(manifest.model_dump() | changes)


def test_calibration_scores_must_ascend() -> None:
    with pytest.raises(ValidationError, match="ascend"):
        Calibration(method="any", scores=(2.0, 1.0), error_map=ErrorMapScale(low=0, high=1))


def test_a_heatmap_scale_must_have_an_extent() -> None:
    with pytest.raises(ValidationError, match="above low"):
        ErrorMapScale(low=1, high=1)


def test_default_values_are_omitted_because_older_services_refuse_them() -> None:
    default = InputSpec(height=4, width=6, channels=1)
    changed = InputSpec(height=4, width=6, channels=1, white_16_bit=4095, reducing_gap=1.5)
    assert default.model_dump() == {"height": 4, "width": 6, "channels": 1, "resample": "bilinear"}
    assert InputSpec.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize("white", [254, 65536])
def test_white_is_between_eight_and_sixteen_bits(white: int) -> None:
    with pytest.raises(ValidationError, match="white_16_bit"):
        InputSpec(height=4, width=6, channels=1, white_16_bit=white)
