"""The code blocks of a page of the documentation, and what the page says about running them.

A comment before a block says why it is not run (`<!-- not run: needs a Runpod account -->`), or which test runs it
(`<!-- run by tests/integration/test_runpod_up.py -->`). Neither is seen by a reader.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = sorted(
    page
    for page in [*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    if "node_modules" not in page.parts
)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)$")
_NOTE = re.compile(r"^ *<!-- (?:not run: (?P<why>.+)|run by (?P<test>\S+)) -->$")


@dataclass(frozen=True)
class Block:
    """One block: where it begins, its language and text, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    why_not_run: str | None = None
    run_by: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    before = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            note = _NOTE.match(before)
            text = []
            for _, inner in lines:
                if inner == f"{fence['indent']}```":
                    break
                text.append(inner.removeprefix(fence["indent"]))
            yield Block(
                page=page,
                line=number,
                language=fence["language"],
                text="\n".join(text) + "\n",
                why_not_run=note["why"] if note else None,
                run_by=note["test"] if note else None,
            )
        before = line


def english_of(page: Path) -> Path:
    """Return the English page of a Russian one."""
    return ROOT / "README.md" if page.name == "README.ru.md" else ROOT / "docs" / page.relative_to(ROOT / "docs" / "ru")


def is_russian(page: Path) -> bool:
    return page.name == "README.ru.md" or page.is_relative_to(ROOT / "docs" / "ru")
