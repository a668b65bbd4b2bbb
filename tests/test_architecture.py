import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HOMES = ("", "bundle", "service", "training", "benchmarks")  # of the paths in the walks


def test_every_path_of_the_map_exists() -> None:
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.(?:py|md|toml)|/))`", MAP)
    assert len(named) > 40
    beside = {Path(path) if path.endswith("/") else Path(path).parent for path in named}
    missing = [
        path
        for path in named
        if not any((ROOT / home / path).exists() for home in HOMES)
        and not any((ROOT / home / other / path).exists() for home in HOMES for other in beside)
    ]
    assert missing == []


def test_every_package_is_on_the_map() -> None:
    packages = [
        path.parent.relative_to(ROOT).as_posix()
        for home in ("service", "training", "benchmarks")
        for path in sorted((ROOT / home).glob("*/__init__.py"))
    ]
    assert [path for path in packages if f"`{path}/`" not in MAP] == []


def test_the_map_is_at_most_two_pages() -> None:
    assert len(MAP.split()) < 1100
