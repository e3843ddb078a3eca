"""The table of installations can be written again: each row is there, once, on both pages."""

from pathlib import Path

import pytest

from tools.install_size.__main__ import _OURS, _PEERS, PAGES, label_of, write_row


@pytest.mark.parametrize("page", PAGES, ids=str)
@pytest.mark.parametrize("name", [*_OURS, *_PEERS])
def test_a_row_is_found_and_written(page: Path, name: str) -> None:
    label = label_of(name, is_russian=page.parent.name == "ru")
    written = write_row(page.read_text(), label, 12345, 67890)
    assert len([line for line in written.splitlines() if line.endswith("| 12345 | 67890 |")]) == 1
