"""docs/environment.md (and its translation) names every variable that settings.py reads."""

import re
from pathlib import Path

import pytest

import comfypin

DOCS = Path(__file__).parents[3] / "docs"
VARIABLE = re.compile(r"""["']((?:[A-Z][A-Z0-9]*_)+[A-Z0-9]+)["']""")
# The folders of the user's caches and state are the system's to document.
SYSTEM = {"XDG_CACHE_HOME", "XDG_STATE_HOME"}


@pytest.mark.parametrize("page", ["environment.md", "ru/environment.md"])
def test_every_variable_is_documented(page: str) -> None:
    read = set(VARIABLE.findall(Path(comfypin.__file__).with_name("settings.py").read_text())) - SYSTEM
    documented = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (DOCS / page).read_text()))
    assert read - documented == set()
