"""What the documents tell people to type: every command is there, and has the flags."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.ru.md"]
GROUPS = {"lock", "env", "models", "image", "runpod", "workflow", "jobs", "fleet"}
# Not the namespace of `kubectl -n comfypin create`.
COMMAND = re.compile(r"(?<!-n )(?<!namespace )comfypin ([a-z][a-z-]*(?: [^\n`|#]*)?)")
FLAG = re.compile(r"(?<!\S)--[a-z][a-z-]*")


@cache
def help_of(words: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "comfypin.cli.main", *words, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout if ran.returncode == 0 else ""


def documented(page: Path) -> list[tuple[tuple[str, ...], str]]:
    """Each command of a page with each flag it is shown with."""
    found = []
    for match in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
        words = match[1].split()
        depth = 1 + (words[0] in GROUPS) + (words[:2] == ["runpod", "volume"])
        names = tuple(word.rstrip(",.;") for word in words[:depth])
        if all(re.fullmatch("[a-z-]+", name) for name in names):
            found += [(names, flag) for flag in FLAG.findall(match[1])]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_to_type_is_there(page: Path) -> None:
    wrong = [
        f"comfypin {' '.join(names)} {flag}"
        for names, flag in documented(page)
        if not re.search(re.escape(flag) + r"(?![a-z-])", help_of(names))
    ]
    assert wrong == []


def test_pages_are_read() -> None:
    assert (("image", "build"), "--release") in documented(ROOT / "docs" / "serverless.md")
