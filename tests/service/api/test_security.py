import json
import os
from pathlib import Path

import pytest

from bundle.errors import InvalidParameter
from service.api.security import FILE_SECONDS, ApiKeys, Forbidden, Unauthorized
from service.keys import create_key, parse_entries
from tests.service.api.helpers import entries


def write(path: Path, text: str, changed: float) -> None:
    path.write_text(text)
    os.utime(path, (changed, changed))


def test_without_keys_everything_is_permitted() -> None:
    keys = ApiKeys({})
    assert not keys.needed
    assert keys.check(None, "admin") is None


def test_a_key_is_known_by_its_digest_and_named() -> None:
    key, entry = create_key("camera-1", ["encode"])
    keys = ApiKeys(parse_entries(entry))
    assert key not in entry
    assert keys.check(key, "encode") == "camera-1"
    with pytest.raises(Forbidden):
        keys.check(key, "decode")
    for other in (None, "", "x", json.loads(entry)["camera-1"]["sha256"]):
        with pytest.raises(Unauthorized):
            keys.check(other, "encode")


def test_the_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    (old, first), (new, second) = (create_key("one", ["*"]) for _ in range(2))
    file, now = tmp_path / "keys.json", 100.0
    write(file, first, changed=1)
    keys = ApiKeys(entries({"fixed": ["*"]}), file, clock=lambda: now)
    assert keys.check(old, "encode") == "one"
    write(file, second, changed=2)
    assert keys.check(old, "encode") == "one"  # no look yet
    now += FILE_SECONDS
    with pytest.raises(Unauthorized):
        keys.check(old, "encode")
    assert (keys.check(new, "encode"), keys.check("fixed", "encode")) == ("one", "fixed")


def test_a_file_that_becomes_invalid_keeps_the_former_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, entry = create_key("one", ["*"])
    file, now = tmp_path / "keys.json", 100.0
    write(file, entry, changed=1)
    keys = ApiKeys({}, file, clock=lambda: now)
    for changed, text in ((2, "no json"), (3, '{"one": {"sha256": "SECRET"}}')):
        write(file, text, changed)
        now += FILE_SECONDS
        assert keys.check(key, "encode") == "one"
    file.unlink()
    now += FILE_SECONDS
    assert keys.check(key, "encode") == "one"
    assert caplog.text.count("kept the former API keys") == 3
    assert "SECRET" not in caplog.text
    with pytest.raises(InvalidParameter, match="cannot be read"):
        ApiKeys({}, file)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "Input should be an object"),
        ('{"SECRET": ["*"]}', "entry: Input should be an object"),
        ('{"a": {"sha256": "SECRET"}}', "sha256: String should match"),
        ('{"a": {"sha256": "%s", "rights": ["encod"]}}' % ("0" * 64), "rights: Input should be"),
    ],
)
def test_an_invalid_entry_is_described_without_its_values(text: str, complaint: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_entries(text)
    assert complaint in str(caught.value)
    assert '"rights": ["encode"]' in str(caught.value)
    assert "SECRET" not in str(caught.value)
