"""The table of changes in CONTRIBUTING.md names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "comfypin"


def test_every_file_of_the_table_is_there() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    rows = lines[lines.index("| change | files in `src/comfypin` | also |") + 2 :]
    table = [row.split("|") for row in rows[: rows.index("")]]
    named = [
        (root, path) for row in table for root, cell in ((PACKAGE, row[2]), (ROOT, row[3])) for path in _paths(cell)
    ]
    assert len(named) > 20
    assert [path for root, path in named if not (root / path).exists()] == []


def _paths(cell: str) -> list[str]:
    return [word for word in re.findall(r"`([^`]+)`", cell) if "/" in word or "." in word if "<" not in word]
