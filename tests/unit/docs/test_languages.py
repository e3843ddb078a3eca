"""Every page is there in English and in Russian, and in the navigation of the site."""

from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] != "ru")
GENERATED = {"commands.md", "errors.md", "changelog.md"}


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions, as plain data."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
_Loader.add_constructor("!ENV", lambda loader, node: None)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_there_in_russian(page: Path) -> None:
    assert (DOCS / "ru" / page).is_file()


def test_no_page_is_russian_only() -> None:
    russian = {path.relative_to(DOCS / "ru") for path in (DOCS / "ru").rglob("*.md")}
    assert russian - set(PAGES) == set()


def pages_of(entry: object) -> set[str]:
    if isinstance(entry, str):
        return {entry}
    children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return {page for child in children for page in pages_of(child)}


def test_the_navigation_names_every_page() -> None:
    settings = yaml.load((DOCS.parent / "mkdocs.yml").read_text(), _Loader)
    assert pages_of(settings["nav"]) == {page.as_posix() for page in PAGES} | GENERATED
