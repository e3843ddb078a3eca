"""Wheels that uv unpacks while it is at work."""

from pathlib import Path
from queue import SimpleQueue

from comfypin.env.install.unpacked_wheels import UnpackedWheels


def arrive(cache: Path, name: str) -> Path:
    """A wheel as uv unpacks it: aside, then renamed."""
    (cache / "archive-v0").mkdir(exist_ok=True)
    aside = cache / f".tmp-{name}"
    aside.mkdir()
    return aside.rename(cache / "archive-v0" / name)


def test_what_arrives_is_told_and_what_was_there_is_not(tmp_path: Path) -> None:
    arrive(tmp_path, "old")
    told: SimpleQueue[str] = SimpleQueue()
    with UnpackedWheels(tmp_path, told.put):
        new = arrive(tmp_path, "new")
        assert told.get(timeout=20) == str(new)
    assert told.empty()


def test_a_cache_that_is_not_there_yet_is_awaited(tmp_path: Path) -> None:
    told: SimpleQueue[str] = SimpleQueue()
    with UnpackedWheels(tmp_path / "cache", told.put):
        (tmp_path / "cache").mkdir()
        new = arrive(tmp_path / "cache", "first")
        assert told.get(timeout=20) == str(new)
