"""docs/exit-codes.md (and its translation) names every family and every exit code, and nothing else."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import comfypin
from comfypin.errors import ComfypinError

DOCS = Path(__file__).parents[3] / "docs"
ROW = re.compile(r"^\| (\d+) \| (\w*) \|", re.MULTILINE)


def all_errors(root: type[ComfypinError] = ComfypinError) -> Iterator[type[ComfypinError]]:
    for module in pkgutil.walk_packages(comfypin.__path__, "comfypin."):
        if ".errors" in module.name or module.name.startswith("comfypin.cli."):
            importlib.import_module(module.name)
    yield root
    unseen = [root]
    while unseen:
        for error in unseen.pop().__subclasses__():
            unseen.append(error)
            yield error


@pytest.mark.parametrize("page", ["exit-codes.md", "ru/exit-codes.md"])
def test_the_page_says_what_the_code_does(page: str) -> None:
    documented = {(int(code), family) for code, family in ROW.findall((DOCS / page).read_text())} - {(0, "")}
    # Deployment errors may carry the code of what they found: 3, 21 and 22 mean the same there.
    codes = {(error.exit_code, error.family) for error in all_errors() if error.__module__.startswith("comfypin")}
    shared = {(code, family) for code, family in codes if family == "deploy" and code != 70}
    assert codes - shared == documented
    assert {code for code, _ in shared} <= {code for code, _ in documented}


def test_a_family_is_one_word_everywhere() -> None:
    assert all(re.fullmatch(r"[a-z]+", error.family) for error in all_errors())
