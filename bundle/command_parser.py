"""Parsers of both command lines: examples, versions, completion, and the nearest word."""

import argparse
import difflib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bundle import terminal
from bundle.errors import InvalidParameter

USAGE_STATUS = 2  # of a command line that cannot be run, as argparse has it
SHELLS = ("bash", "zsh", "fish", "tcsh")
PATH_METAVARS = ("DIR", "DIR|URL", "FILE", "PATH")  # of arguments that complete to files


class CommandParser(argparse.ArgumentParser):
    """Parser with examples in its help; its errors name the word nearest to an unknown one.

    In an example, `%(prog)s` is the program, and the command if there is one.
    """

    def __init__(self, *, examples: Sequence[str], **options: Any) -> None:
        epilog = "\n  ".join(["examples:", *examples])
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(epilog=epilog, formatter_class=formatter, **options)
        self.first_example = examples[0] % {"prog": self.prog}
        self.paths: list[argparse.Action] = []

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument, and remember it if it is a path."""
        action = super().add_argument(*names, **options)
        if action.metavar in PATH_METAVARS:
            self.paths.append(action)
        return action

    def add_json(self, guide: str) -> None:
        """Add the option `--json`; a guide describes the document."""
        self.add_argument(
            "--json",
            action="store_true",
            help=f"print the results as one JSON document ({guide} describes it)",
        )

    def list_options(self) -> list[str]:
        """List the options, such as --json."""
        return [*self._option_string_actions]

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with an error of unknown arguments."""
        nearest = _find_nearest(unknown[0].partition("=")[0], self.list_options())
        self.error(f"unrecognized arguments: {' '.join(unknown)}{_suggest(nearest)}")

    def error(self, message: str) -> NoReturn:
        """Exit with an error, which names the nearest choice if one is invalid."""
        invalid = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        nearest = _find_nearest(invalid[1], re.findall(r"[\w-]+", invalid[2])) if invalid else ""
        super().error(message + _suggest(nearest))


class ProgramParser(CommandParser):
    """Parser of a module with commands.

    `program` is the script that shells complete, because they cannot complete a module.
    """

    def __init__(
        self,
        module: str,
        program: str,
        list_versions: Callable[[], Sequence[str]],
        **options: Any,
    ) -> None:
        super().__init__(prog=terminal.name_module(module), **options)
        self._program = program
        self.add_argument(
            "--version",
            action=_PrintText,
            nargs=0,
            render=lambda _: "\n".join(list_versions()),
            help="print the versions of the program, its runtime and Python",
        )
        self.add_argument(
            "--print-completion",
            action=_PrintText,
            choices=SHELLS,
            render=self._render_completion,
            help=f"print the script by which a shell completes the words of {program}",
        )
        self._commands = self.add_subparsers(
            required=True, metavar="COMMAND", dest="command_name", parser_class=CommandParser
        )

    def add_command(self, name: str, summary: str, *examples: str) -> CommandParser:
        """Add a command, and return its parser."""
        return self._commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", examples=examples
        )

    def parse_command(
        self, arguments: Sequence[str] | None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a command; without arguments, print the help, and exit as for wrong usage."""
        given = sys.argv[1:] if arguments is None else arguments
        if not given:
            self.print_help(sys.stderr)
            self.exit(USAGE_STATUS, f"\ntry first: {self.first_example}\n")
        self._check_before_command(given[0].partition("=")[0])
        options, unknown = self.parse_known_args(given, namespace)
        if unknown:
            self._commands.choices[options.command_name].refuse(unknown)
        return options

    def _check_before_command(self, word: str) -> None:
        """Exit with an error if a word is an unknown option, or one of a command."""
        own = self.list_options()
        if not word.startswith("-") or any(option.startswith(word) for option in own):
            return
        commands = self._commands.choices.values()
        others = [option for command in commands for option in command.list_options()]
        nearest = _find_nearest(word, [*own, *others])
        nearest = nearest if nearest in ("", *own) else f"COMMAND {nearest}"
        self.error(f"unrecognized arguments: {word}{_suggest(nearest)}")

    def _render_completion(self, shell: str) -> str:
        try:
            import shtab
        except ImportError:
            raise InvalidParameter(
                "--print-completion needs shtab: run pip install '.[terminal]' in the checkout"
            ) from None
        self.prog = self._program
        for parser in (self, *self._commands.choices.values()):
            for action in parser.paths:
                vars(action)["complete"] = shtab.FILE
        return shtab.complete(self, shell)


class _PrintText(argparse.Action):
    """Prints a text, which may depend on the option's value, and exits."""

    def __init__(self, *, render: Callable[[Any], str], **options: Any) -> None:
        super().__init__(default=argparse.SUPPRESS, **options)
        self._render = render

    def __call__(self, parser: argparse.ArgumentParser, _: object, value: Any, *__: object) -> None:
        try:
            print(self._render(value))
        except InvalidParameter as error:
            parser.exit(1, f"error: {error}\n")
        parser.exit()


def describe_version(*distributions: str) -> str:
    """Return the name and version of the first distribution that is installed."""
    for name in distributions:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{distributions[0]} is not installed"


def _find_nearest(word: str, known: Sequence[str]) -> str:
    """Return the nearest of some words, or an empty text if none is near."""
    return next(iter(difflib.get_close_matches(word, known, 1)), "")


def _suggest(word: str) -> str:
    return f"; did you mean {word}?" if word else ""
