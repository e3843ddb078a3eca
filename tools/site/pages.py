"""Stages the pages of the site: `docs/` in both languages, and the pages that the code itself writes.

The reference of commands comes from the parsers and the list of errors from their declarations, so neither can say what
the code does not do.
"""

import argparse
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.cli.command_parsers import walk_parsers
from comfypin.cli.explain import ErrorEntry, list_errors

PROJECT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r'(<img src=")([^"]+)(")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language of the site: its code, and the folder of `docs/` that holds its pages."""

    code: str
    folder: Path
    words: Mapping[str, str]


ENGLISH = Language(
    code="en",
    folder=PROJECT / "docs",
    words={
        "commands": "Commands",
        "commands_lead": "What `--help` prints, of every command. This page is made from the code.",
        "errors": "Errors by name",
        "errors_lead": (
            "Every failure has a name (`error` in its JSON), a family and an exit code. Words in capitals are what the "
            "message fills in. This page is made from the code; [exit codes](exit-codes.md) says what helps for each "
            "family."
        ),
        "code": "exit code",
        "says": "It says",
        "remedy": "What to do",
    },
)
RUSSIAN = Language(
    code="ru",
    folder=PROJECT / "docs" / "ru",
    words={
        "commands": "Команды",
        "commands_lead": (
            "То, что печатает `--help` каждой команды (по-английски, как в программе). Страница сделана из кода."
        ),
        "errors": "Ошибки по именам",
        "errors_lead": (
            "У каждого сбоя есть имя (`error` в его JSON), семейство и код выхода. Слова заглавными буквами "
            "подставляет сообщение; сообщения по-английски, как в программе. Страница сделана из кода; что помогает "
            "каждому семейству, сказано в [кодах выхода](exit-codes.md)."
        ),
        "code": "код выхода",
        "says": "Сообщение",
        "remedy": "Что делать",
    },
)
LANGUAGES = (ENGLISH, RUSSIAN)


def stage_pages(target: Path) -> None:
    """Write every page of every language below `target`, one folder a language."""
    for language in LANGUAGES:
        folder = target / language.code
        for source in sorted(language.folder.rglob("*")):
            relative = source.relative_to(language.folder)
            if source.is_dir() or (language is ENGLISH and relative.parts[0] == "ru"):
                continue
            if source.suffix == ".md":
                _write_page(folder / relative, adapt_links(source.read_text(), source, language))
            else:
                _copy_file(source, folder / relative)
        # Pictures and schemas are the same in both languages.
        for source in sorted(path for path in ENGLISH.folder.rglob("*") if path.is_file() and path.suffix != ".md"):
            _copy_file(source, folder / source.relative_to(ENGLISH.folder))
        _write_page(folder / "changelog.md", (PROJECT / "CHANGELOG.md").read_text())
        _write_page(folder / "commands.md", render_commands(language))
        _write_page(folder / "errors.md", render_errors(language))


def adapt_links(text: str, source: Path, language: Language) -> str:
    """Return a page whose links lead to pages of the site, or to the repository if the file is no page."""

    def adapt(match: re.Match[str]) -> str:
        target, anchor = match.group(1), match.group(2) or ""
        return f"]({_site_address(target, source, language)}{anchor})"

    adapted = LINK.sub(adapt, text)
    return IMAGE.sub(
        lambda match: f"{match.group(1)}{_site_address(match.group(2), source, language)}{match.group(3)}", adapted
    )


def _site_address(target: str, source: Path, language: Language) -> str:
    path = (source.parent / target).resolve()
    if not path.exists():
        return target  # the strict build names the page and the link
    if path == PROJECT / "CHANGELOG.md":
        return os.path.relpath(language.folder / "changelog.md", source.parent)
    if path.is_relative_to(language.folder):
        return target
    if path.is_relative_to(ENGLISH.folder) and path.is_file() and path.suffix != ".md":
        return os.path.relpath(language.folder / path.relative_to(ENGLISH.folder), source.parent)
    return f"{repository_url()}/blob/main/{path.relative_to(PROJECT).as_posix()}"


def repository_url() -> str:
    """Return the repository's address, as pyproject.toml says it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return str(project["urls"]["Repository"])


def render_commands(language: Language) -> str:
    """Return the page with the help of every command and of its sub-commands."""
    lines = [f"# {language.words['commands']}", language.words["commands_lead"], ""]
    for name, parser in walk_parsers():
        # Deeper commands get deeper headings, so that the table of contents shows their nouns first.
        lines += [f"{'#' * min(name.count(' ') + 2, 4)} comfypin {name}", "```text", _help_of(parser), "```", ""]
    return "\n".join(lines)


def _help_of(parser: argparse.ArgumentParser) -> str:
    # argparse wraps at the terminal's width, which a page must not depend on.
    width_before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        return parser.format_help().rstrip()
    finally:
        if width_before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width_before


def render_errors(language: Language) -> str:
    """Return the page with every error that a user may see, by family and name, as `comfypin explain` tells it."""
    words = language.words
    lines = [f"# {words['errors']}", words["errors_lead"], ""]
    by_family: dict[str, list[ErrorEntry]] = {}
    for entry in list_errors():
        if not entry.name.startswith("_"):
            by_family.setdefault(entry.family, []).append(entry)
    for family, entries in sorted(by_family.items()):
        lines += [f"## {family}", ""]
        for entry in sorted(entries, key=lambda one: one.name):
            lines += [f"### {entry.name}", f"{words['code']} {entry.exit_code}. {entry.cause}", ""]
            if entry.message:
                lines += [f"{words['says']}: `{entry.message}`", ""]
            lines += [f"{words['remedy']}: {entry.remedy}", ""]
    return "\n".join(lines)


def _write_page(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
