"""Files hashed while uv is at work, and whether that is believed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from comfypin.env.ahead import Ahead
from comfypin.env.manifest import survey_and_stamp


def arrive(cache: Path, name: str, files: dict[str, bytes]) -> Path:
    """A wheel as uv unpacks it: aside, then renamed."""
    aside = cache / f".tmp-{name}"
    for path, data in files.items():
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (aside / path).write_bytes(data)
    (cache / "archive-v0").mkdir(exist_ok=True)
    return aside.rename(cache / "archive-v0" / name)


def hashed_ahead(cache: Path, folder: dict[str, bytes]) -> tuple[Path, Ahead]:
    with Ahead(cache) as ahead:
        place = arrive(cache, "new", folder)
        until = time.monotonic() + 20
        while len(ahead.hashed) < len(folder) and time.monotonic() < until:
            time.sleep(0.005)
    return place, ahead


def test_what_arrives_is_hashed_and_what_was_there_is_not(tmp_path: Path) -> None:
    arrive(tmp_path, "old", {"old.py": b"old"})
    large = os.urandom((1 << 20) + 5)
    _, ahead = hashed_ahead(tmp_path, {"a/b.py": b"small", "a/large": large})
    digests = {found.sha256 for found in ahead.hashed.values()}
    assert digests == {hashlib.sha256(b"small").hexdigest(), hashlib.sha256(large).hexdigest()}


@pytest.mark.parametrize("change", [b"longer than it was", b"other"], ids=["size", "time"])
def test_a_file_that_changed_since_is_read_again(tmp_path: Path, change: bytes) -> None:
    place, ahead = hashed_ahead(tmp_path, {"a.py": b"small", "b.py": b"as it was"})
    build = tmp_path / "build"
    build.mkdir()
    for name in ("a.py", "b.py"):
        os.link(place / name, build / name)
    later = (place / "a.py").stat().st_mtime_ns + 1
    (place / "a.py").write_bytes(change)
    os.utime(place / "a.py", ns=(later, later))
    manifest, stamps = survey_and_stamp(build, ahead.hashed)
    assert manifest.files["a.py"].sha256 == hashlib.sha256(change).hexdigest()
    assert manifest.files["b.py"].sha256 == hashlib.sha256(b"as it was").hexdigest()
    assert stamps["a.py"] == (len(change), later)


def test_a_file_that_is_the_same_is_not_read_again(tmp_path: Path) -> None:
    """A wrong digest that was found ahead shows whether it was taken."""
    place, ahead = hashed_ahead(tmp_path, {"a.py": b"small"})
    ((inode, found),) = ahead.hashed.items()
    build = tmp_path / "build"
    build.mkdir()
    os.link(place / "a.py", build / "a.py")
    manifest, _ = survey_and_stamp(build, {inode: found._replace(sha256="0" * 64)})
    assert manifest.files["a.py"].sha256 == "0" * 64


def test_a_cache_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    with Ahead(tmp_path / "missing") as ahead:
        pass
    assert ahead.hashed == {}
