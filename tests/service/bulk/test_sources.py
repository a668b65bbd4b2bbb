import os
from pathlib import Path

import pytest

from bundle.errors import InvalidParameter
from service.bulk import sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b/2.JPG",
        "b/1.png",
        "a.png",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "b/list.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def below(folder: Path, *given: str, omit: tuple[Path, ...] = ()) -> list[str]:
    return [
        Path(str(path)).relative_to(folder).as_posix()
        for path in sources.find_files([str(folder / name) for name in given], omit)
    ]


def test_of_a_folder_the_images_are_taken_in_the_order_of_their_names(folder: Path) -> None:
    assert below(folder, "") == ["a.png", "b/1.png", "b/2.JPG"]


def test_a_named_file_is_taken_whatever_its_suffix(folder: Path) -> None:
    assert below(folder, "notes.txt", "b") == ["notes.txt", "b/1.png", "b/2.JPG"]


def test_hidden_files_and_own_output_are_skipped(folder: Path) -> None:
    assert below(folder, "", "**/*.png", omit=(folder / "b", folder / "z")) == ["a.png", "a.png"]


def test_a_list_names_files_in_bytes_of_any_kind() -> None:
    lines = [b"\xef\xbb\xbfone.png\r\n", b"\n", b"tw\xff.png\n", b"last"]
    assert [os.fsencode(path) for path in sources.read_list(lines)] == [
        b"one.png",
        b"tw\xff.png",
        b"last",
    ]


def test_a_url_in_a_list_is_an_error() -> None:
    with pytest.raises(InvalidParameter, match=r"line 2 of the --list is the URL s3://b/1\.png; "):
        list(sources.read_list([b"one.png\n", b"s3://b/1.png\n"]))


def test_a_folder_that_cannot_be_listed_is_yielded_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert below(folder, "") == ["a.png", "b"]
    with pytest.raises(PermissionError):
        sources.measure(folder / "b")


@pytest.mark.parametrize(
    ("pattern", "found"), [("b/*", {"b/1.png", "b/2.JPG"}), ("**/*.png", {"a.png", "b/1.png"})]
)
def test_patterns_match_images(folder: Path, pattern: str, found: set[str]) -> None:
    assert set(below(folder, pattern)) == found


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("gone", "does not exist"), ("*.webp", "matches no image"), ("*.txt", "matches no image")],
)
def test_a_source_that_names_nothing_is_an_error(folder: Path, source: str, complaint: str) -> None:
    sources.check([str(folder), str(folder / "*.png")])
    with pytest.raises(InvalidParameter, match=complaint):
        sources.check([str(folder), str(folder / source)])


def test_a_name_that_is_not_utf8_has_a_label_that_is() -> None:
    assert sources.escape(os.fsdecode(b"a\xff.png")) == "a\\xff.png"


def test_only_regular_files_have_a_size(tmp_path: Path) -> None:
    (tmp_path / "three").write_bytes(b"abc")
    assert sources.measure(tmp_path / "three") == 3
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError, match=r"it is a folder|No such file"):
            sources.measure(path)
