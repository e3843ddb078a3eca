"""No message says "1 files"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from comfypin.plurals import format_count

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
