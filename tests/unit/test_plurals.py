"""No message says "1 files", and sizes are said in one way."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.plurals import format_count, format_limit, format_rate, format_size

SOURCES = Path(__file__).parents[2] / "src" / "comfypin"
THINGS = re.compile(
    r" (?:nodes|files|models|packages|workflows|jobs|pins|layers|blobs|packs|requirements|releases|resources"
    r"|secrets|things|commits|frames|keys|choices)\b"
)


def test_one_thing_is_not_counted_as_many() -> None:
    assert (format_count(1, "file"), format_count(2, "file"), format_count(0, "file")) == (
        "1 file",
        "2 files",
        "0 files",
    )


def counted_things(source: Path) -> Iterator[str]:
    """Yield the texts of a module that put the length of something before the name of many."""
    for text in ast.walk(ast.parse(source.read_text())):
        if isinstance(text, ast.JoinedStr):
            for number, words in zip(text.values, text.values[1:], strict=False):
                is_length = isinstance(number, ast.FormattedValue) and ast.unparse(number.value).startswith("len(")
                if is_length and isinstance(words, ast.Constant) and THINGS.match(str(words.value)):
                    yield f"{source.relative_to(SOURCES)}:{text.lineno}: {ast.unparse(text)}"


def is_one_ruled_out(found: str) -> bool:
    """Return whether a condition beside the text lets it be said of several only."""
    return found.partition(":")[0] in {
        "lock/errors.py",  # "one thing" is its other branch
        "outputs/fallback_folder.py",  # "output is kept" is its other branch
        "workflow/errors.py",  # "1 thing is" is its other branch
        "workflow/node_targets.py",  # a name that means several nodes
        "locking/release_files/desktop.py",  # several snapshots in one file
        "workflow/input_checks.py",  # more choices than are listed
    }


def test_lengths_are_counted_by_format_count() -> None:
    found = [text for source in sorted(SOURCES.rglob("*.py")) for text in counted_things(source)]
    assert not [text for text in found if not is_one_ruled_out(text)]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (3_200, "3.2 kB"), (20_000_000, "20.0 MB")),
        *((999_949_999, "999.9 MB"), (999_960_000, "1.00 GB"), (130_000_000_000, "130.00 GB")),
    ],
)
def test_a_size_is_said_in_its_unit(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


def test_a_limit_has_no_zeros_at_its_end_and_a_rate_is_a_size_a_second() -> None:
    limits = [format_limit(limit) for limit in (10, 8_000_000, 10_500_000, 20_000_000_000, 2_500_000_000)]
    assert limits == ["10 bytes", "8 MB", "10.5 MB", "20 GB", "2.5 GB"]
    assert [format_rate(0), format_rate(5_200_000)] == ["0 bytes/s", "5.2 MB/s"]


def test_sizes_are_said_by_format_size() -> None:
    by_hand = re.compile(r"(?:/ 1e[369]|/ 10\*\*[369]|>> [123]0)[^}]*} ?[kKMG]i?B\b")
    found = [
        f"{source.relative_to(SOURCES)}: {match[0]}"
        for source in sorted(SOURCES.rglob("*.py"))
        for match in by_hand.finditer(source.read_text())
    ]
    # They are what the others call, and what Runpod's form and ComfyUI's flag take as a whole number.
    ruled_out = {"plurals.py", "image/build_plan.py", "engine/input_files.py"}
    assert not [text for text in found if text.partition(":")[0] not in ruled_out]
