"""The wheel brings every page of the documentation along, for `comfypin help`."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_page_is_in_the_wheel() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    packaged = {source for source in built["force-include"] if source.endswith(".md")}
    pages = (ROOT / "docs").rglob("*.md")
    assert packaged == {page.relative_to(ROOT).as_posix() for page in pages}
    assert all(f"comfypin/data/{page}" == built["force-include"][page] for page in packaged)
