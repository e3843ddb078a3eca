"""The documentation site builds: every link, anchor and page of both languages is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# One build for both tests: it takes seconds.
pytestmark = pytest.mark.xdist_group("site")

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "tools.site", "--out", str(folder)],
        cwd=PROJECT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_builds_without_a_broken_link(site: Path) -> None:
    english = (site / "commands" / "index.html").read_text()
    assert "comfypin lock capture" in english
    # The errors that the code declares are there by name, in both languages.
    for page in (site / "errors", site / "ru" / "errors"):
        assert 'id="settinginvalid"' in (page / "index.html").read_text().lower()
    assert "Команды" in (site / "ru" / "commands" / "index.html").read_text()
    assert (site / "search" / "search_index.json").stat().st_size > 100_000


def test_pages_fetch_nothing_from_third_parties(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text, page
        assert "fonts.googleapis.com" not in text, page
