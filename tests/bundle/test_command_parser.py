import subprocess
import sys
from collections.abc import Sequence

import pytest

from bundle.command_parser import SHELLS, ProgramParser, describe_version
from bundle.terminal import name_module


@pytest.fixture
def parser() -> ProgramParser:
    examples = ("%(prog)s draw a.png", "%(prog)s list")
    parser = ProgramParser(
        "tools.paint", "paint", lambda: ["paint 1.0", "Python 3"], examples=examples
    )
    draw = parser.add_command("draw", "draw a PNG", "%(prog)s a.png")
    draw.add_argument("path", metavar="FILE", help="the picture")
    draw.add_argument("--colour", choices=("blue", "green"), default="blue")
    draw.add_json("docs/paint.md")
    parser.add_command("list", "list the pictures", "%(prog)s")
    return parser


def end(parser: ProgramParser, arguments: Sequence[str]) -> object:
    """Parse, and return the status with which the program ends."""
    with pytest.raises(SystemExit) as ended:
        parser.parse_command(arguments)
    return ended.value.code


def test_a_bare_command_prints_the_help_and_its_first_example(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(parser, []) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "draw a PNG" in printed.err
    assert printed.err.endswith(f"\ntry first: {name_module('tools.paint')} draw a.png\n")


def test_a_command_has_its_examples_in_its_help(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(parser, ["draw", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "\nDraw a PNG.\n" in printed
    assert printed.endswith(f"\nexamples:\n  {name_module('tools.paint')} draw a.png\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("lst", "'draw', 'list'); did you mean list?"),
        ("draw a --colour bleu", "; did you mean blue?"),
        ("draw a --collour=blue", "unrecognized arguments: --collour=blue; did you mean --colour?"),
        ("list --zzz 3", "unrecognized arguments: --zzz 3"),
        ("--jsn", "unrecognized arguments: --jsn; did you mean COMMAND --json?"),
        ("--json draw", "unrecognized arguments: --json; did you mean COMMAND --json?"),
        ("--colour=blue draw", "unrecognized arguments: --colour; did you mean COMMAND --colour?"),
        ("--colur blue", "unrecognized arguments: --colur; did you mean COMMAND --colour?"),
        ("--versoin list", "unrecognized arguments: --versoin; did you mean --version?"),
        ("-x", "unrecognized arguments: -x"),
    ],
)
def test_a_mistyped_word_is_answered_by_the_nearest(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str], words: str, error: str
) -> None:
    assert end(parser, words.split()) == 2
    assert capsys.readouterr().err.replace("draw, list", "'draw', 'list'").endswith(f"{error}\n")


def test_the_versions_are_printed(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(parser, ["--version"]) == 0
    assert capsys.readouterr().out == "paint 1.0\nPython 3\n"


def test_the_version_of_what_is_installed_is_described() -> None:
    assert describe_version("none-such", "pytest") == f"pytest {pytest.__version__}"
    assert describe_version("none-such", "nor-this") == "none-such is not installed"


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_of_commands_options_and_choices(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    assert end(parser, ["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("paint", "draw", "list", "colour", "green"):
        assert word in script


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("dr", ["draw"]),
        ("draw --col", ["--colour"]),
        ("draw --colour gr", ["green"]),
        ("draw pyproj", ["pyproject.toml"]),
    ],
)
def test_bash_completes(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str], typed: str, words: list[str]
) -> None:
    assert end(parser, ["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    typed_words = ["paint", *typed.split()]
    script += f"\nCOMP_WORDS=({' '.join(typed_words)}); COMP_CWORD={len(typed_words) - 1}"
    script += '\n_shtab_paint\nprintf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == words


def test_without_shtab_completion_says_what_to_install(
    parser: ProgramParser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert end(parser, ["--print-completion", "bash"]) == 1
    assert "needs shtab: run pip install '.[terminal]'" in capsys.readouterr().err
