"""Walks the parsers of all commands: completion, the site's reference and the tests of pages read the same."""

import argparse
from collections.abc import Iterator

from comfypin.cli.main import NOUNS, make_command_parser


def walk_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command with its parser: `lock`, then `lock create`, and so on."""
    for noun in NOUNS:
        yield from _walk_parser(noun, make_command_parser(noun))


def _walk_parser(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb_parser in action.choices.items():
                yield from _walk_parser(f"{path} {name}", verb_parser)
