"""The page that lists all decisions, from their first lines."""

from pathlib import Path

INTRODUCTION = """# Decisions

Each page records a choice between designs: its context, the decision and the consequences. A
decision is never rewritten; a newer one supersedes it. `make reference` writes this list.
"""


def render(directory: Path) -> str:
    """Return the page of the decisions in a directory, by number."""
    lines = [
        f"- [{path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}]({path.name})"
        for path in sorted(directory.glob("[0-9]*.md"))
    ]
    return "\n".join([INTRODUCTION, *lines, ""])
