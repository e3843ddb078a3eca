"""No page names a command, or a flag of one, that does not exist."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.cli.command_parsers import walk_parsers

PROJECT = Path(__file__).parents[3]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
# A command at the beginning of a line, after a prompt, a variable, a pipe, or in $(...).
COMMAND = re.compile(r"(?:^|[$(|;&`]|\$ |=\S* |then )\s*(?:\.venv/bin/)?comfypin ([a-z][^`\n|;&)<>]*)", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`comfypin ([a-z][^`\n]*)`")
FLAG = re.compile(r"^--[a-z][a-z0-9-]*")

PARSERS = {f"comfypin {path}": parser for path, parser in walk_parsers()}
NOUNS = {name.split()[1] for name in PARSERS}


def commands_of(page: str) -> Iterator[str]:
    """Yield what stands behind `comfypin` in each command of a page: in code blocks, and within a line.

    Only where a command may begin: `kubectl -n comfypin create` is none of ours.
    """
    for language, block in FENCE.findall(page):
        if language in ("", "sh", "console", "bash", "yaml"):
            yield from COMMAND.findall(block.replace("\\\n", " "))
    yield from INLINE.findall(FENCE.sub("", page))


def find_parser(words: list[str]) -> tuple[ArgumentParser, list[str]]:
    """Return the parser of the command that the words name, and the words after it."""
    name, rest = f"comfypin {words[0]}", words[1:]
    while rest and f"{name} {rest[0]}" in PARSERS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    return PARSERS[name], rest


def mistakes_of(command: str) -> Iterator[str]:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        words = command.split()
    # `lock create|capture` stands for two commands.
    if "|" in words[0] or not words[0].isidentifier():
        return
    if words[0] not in NOUNS:
        yield f"comfypin {words[0]}: no such command"
        return
    for alternative in words[1].split("|") if len(words) > 1 and "|" in words[1] else [None]:
        chosen = words if alternative is None else [words[0], alternative, *words[2:]]
        parser, rest = find_parser(chosen)
        subcommands = [name for name in PARSERS if name.startswith(f"{parser.prog} ")]
        if subcommands and rest and re.fullmatch(r"[a-z-]+", rest[0]):
            yield f"{parser.prog} {rest[0]}: no such command"
        known = {flag for action in parser._actions for flag in action.option_strings}
        for word in rest:
            flag = FLAG.match(word)
            if flag and flag.group() not in known:
                yield f"{parser.prog}: no flag {flag.group()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_page_names_only_commands_and_flags_that_exist(page: Path) -> None:
    found = {mistake for command in commands_of(page.read_text()) for mistake in mistakes_of(command)}
    assert not found, sorted(found)


def test_a_wrong_flag_is_found() -> None:
    page = "```sh\ncomfypin run --lock demo \\\n    --workfow x.json\n```\nand `comfypin fly`, `comfypin lock crate x`"
    found = [mistake for command in commands_of(page) for mistake in mistakes_of(command)]
    assert found == [
        "comfypin run: no flag --workfow",
        "comfypin fly: no such command",
        "comfypin lock crate: no such command",
    ]


def test_pages_are_read() -> None:
    page = (PROJECT / "docs" / "serverless.md").read_text()
    assert any(command.startswith("image build --release") for command in commands_of(page))
    namespace = "```sh\nkubectl -n comfypin create secret generic x --from-literal=A=b\n```"
    assert list(commands_of(namespace)) == []
