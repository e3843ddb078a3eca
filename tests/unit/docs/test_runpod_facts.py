"""docs/runpod-facts.md: each fact has a source, a date, and a test of ours that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| (?P<fact>.+?) \| \[[^]]+\]\((?P<source>[^)]+)\) \| (?P<date>[^|]+) \| `(?P<test>[^`]+)` \|$")


def rows(page: str) -> list[re.Match[str]]:
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith("| ") and "::" in line]
    return [match for line in found if (match := ROW.match(line)) is not None or pytest.fail(line)]


@pytest.mark.parametrize("page", ["runpod-facts.md", "ru/runpod-facts.md"])
def test_each_fact_names_its_source_and_when_it_was_read(page: str) -> None:
    facts = rows(page)
    assert len(facts) > 25
    assert [row["fact"] for row in facts if not re.fullmatch(r"https://\S+", row["source"])] == []
    assert [row["fact"] for row in facts if not re.fullmatch(r"20\d\d-\d\d", row["date"])] == []


@pytest.mark.parametrize("page", ["runpod-facts.md", "ru/runpod-facts.md"])
def test_each_fact_has_a_test_that_is_there(page: str) -> None:
    named = [row["test"].split("::") for row in rows(page)]
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_both_languages_have_the_same_facts() -> None:
    def keys(page: str) -> list[tuple[str, str, str]]:
        return [(row["source"], row["date"], row["test"]) for row in rows(page)]

    assert keys("runpod-facts.md") == keys("ru/runpod-facts.md")
