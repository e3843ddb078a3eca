"""docs/environment.md (and its translation) names every variable that the settings read."""

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
    package = Path(comfypin.__file__).parent
    files = [*package.glob("settings/*.py"), *package.glob("storage/*_settings.py"), *package.glob("outputs/*.py")]
    read = {name for file in files for name in VARIABLE.findall(file.read_text())} - SYSTEM
    assert {"COMFY_HOME", "S3_BUCKET", "OUTPUT_MODE", "INLINE_MAX_BYTES"} <= read
    documented = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (DOCS / page).read_text()))
    assert read - documented == set()
