import re
from pathlib import Path

import pytest

from bundle.errors import InvalidParameter
from service import cli
from service.settings import Settings

OPERATIONS_GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_is_documented_with_its_default() -> None:
    guide = OPERATIONS_GUIDE.read_text(encoding="utf-8")
    table = guide.split("\n## Settings\n")[1].split("\n## ")[0]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else field.default
        assert f"| `AE_{name.upper()}` | `{default}` | {field.description} |" in table


def test_the_environment_sets_and_the_command_line_overrides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AE_PORT", "9000")
    assert Settings().port == 9000
    assert Settings(port=1).port == 1


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("AE_API_KEYS", "no json", "AE_API_KEYS is not JSON; write it like"),
        ("AE_API_KEYS", '{"SECRET": "x"}', "setting api_keys: Input should be"),
        ("AE_PORT", "http", "setting port: Input should be a valid integer"),
        ("AE_WORKERS", "0", "setting workers: Input should be greater than 0"),
        ("AE_DEVICE", "tpu", "setting device: Input should be 'cuda', 'auto' or 'cpu'"),
        ("AE_MAX_IMAGES", "100000", "max_share of max_queued_images must be"),
        ("AE_MAX_BODY_BYTES", "1000000000", "max_queued_bytes must be at least max_body_bytes"),
        ("AE_REQUEST_TIMEOUT", "inf", "setting request_timeout: Input should be a finite number"),
        ("AE_SHUTDOWN_TIMEOUT", "40", "but the process is killed after 30 s"),
        ("AE_PROT", "8001", "AE_PROT is no setting; did you mean AE_PORT?"),
        ("AE_UNLIKE_ANY_OTHER", "1", "AE_UNLIKE_ANY_OTHER is no setting; remove it"),
    ],
)
def test_an_invalid_setting_is_named(
    variable: str,
    value: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert cli.main(["check"]) == 1
    printed = capsys.readouterr().err
    assert complaint in printed
    assert "SECRET" not in printed


def test_limits_and_cores_are_divided_among_workers() -> None:
    share = Settings(max_queued_images=1000, max_images=100).divide(3, cores=8)
    assert (share.max_queued_images, share.max_queued_bytes) == (333, 256 * 2**20 // 3)
    assert (share.max_connections, share.threads) == (333, 2)
    assert Settings(threads=5).divide(3, cores=8).threads == 5


def test_limits_that_are_unset_admit_a_full_request_to_each_of_many_workers() -> None:
    share = Settings().divide(64, cores=8)
    assert share.max_queued_images * share.max_share >= share.max_images
    assert (share.max_queued_bytes, share.threads) == (share.max_body_bytes, 1)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (
            {"max_queued_images": 400},
            "max_queued_images of 400 is 200 for each of 2 workers, but a full request needs 342: "
            "raise it to at least 684, or lower workers",
        ),
        ({"max_queued_bytes": 40_000_000}, "max_queued_bytes of 40000000 is 20000000 for each"),
        ({"max_connections": 1}, "max_connections of 1 is 0 for each of 2 workers"),
    ],
)
def test_limits_that_are_set_too_low_for_workers_are_refused(
    limits: dict[str, int], complaint: str
) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(complaint)):
        Settings.model_validate(limits).divide(2, cores=2)
