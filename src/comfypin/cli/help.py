"""Show the help of a command, or a page of the documentation.

comfypin help                    the topics
comfypin help lock create        a command, as its --help
comfypin help storage            a page; --ru for Russian
"""

import argparse
import re
import sys
from pathlib import Path

import comfypin
from comfypin.errors import UsageError

_COMING_FROM = "coming-from"
_COMMENT = re.compile(r"^ *<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `help`."""
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help="a command with its verb, or a page")
    parser.add_argument("--ru", action="store_true", help="the page in Russian")


def execute(arguments: argparse.Namespace) -> int:
    """Print a page, or the help of a command."""
    from comfypin.cli.main import NOUNS, find_near, main

    pages = list_pages()
    if not arguments.topic:
        main(["--help"])
        print(f"\npages (comfypin help PAGE): {', '.join(pages) or 'none in this installation'}")
        return 0
    first = arguments.topic[0]
    # The tools that people come from are asked for by their names.
    if first not in NOUNS and f"{_COMING_FROM}/{first}" in pages:
        first = f"{_COMING_FROM}/{first}"
    # A page has the name of a command now and then (jobs, sync): the page says how to type its --help.
    if first in NOUNS and (first not in pages or len(arguments.topic) > 1):
        return main([*arguments.topic, "--help"])
    if first in pages and len(arguments.topic) == 1:
        page = _russian_of(pages[first]) if arguments.ru else pages[first]
        # Comments are for those who write the pages.
        sys.stdout.write(_COMMENT.sub("", page.read_text(encoding="utf-8")))
        if first in NOUNS:
            print(f"\nThe flags of the command: comfypin {first} --help")
        return 0
    near = find_near(first, [*NOUNS, *pages])
    hint = f"did you mean {near}?" if near else "comfypin help lists the topics"
    raise UsageError(f"There is no topic {' '.join(arguments.topic)!r}; {hint}.")


def list_pages() -> dict[str, Path]:
    """Return the pages of the documentation by name: the package's own, or those of the checkout."""
    package = Path(comfypin.__file__).parent
    for folder in (package / "data" / "docs", package.parents[1] / "docs"):
        if folder.is_dir():
            pages = (*folder.glob("*.md"), *folder.glob(f"{_COMING_FROM}/*.md"))
            return {page.relative_to(folder).with_suffix("").as_posix(): page for page in sorted(pages)}
    return {}


def _russian_of(page: Path) -> Path:
    folder = page.parent.parent if page.parent.name == _COMING_FROM else page.parent
    russian = folder / "ru" / page.relative_to(folder)
    if not russian.is_file():
        raise UsageError(f"The page {page.stem} is not there in Russian; leave --ru out.")
    return russian
