"""A pack that claims to hold more than it may is refused before it takes memory."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from comfypin.env.errors import PackDamaged
from comfypin.env.pack.format import MAGIC, TRAILER, PackedFrame, PackIndex, encode_index
from comfypin.env.pack.unpack import open_pack, read_index

GIB = 1 << 30
RECEIPT: dict[str, object] = {}


def zeros_frame(size: int) -> bytes:
    """A zstd frame of so many zeros, made piece by piece; its header says the size."""
    maker = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    piece = bytes(1 << 20)
    return b"".join(maker.compress(piece) for _ in range(size >> 20)) + maker.flush()


def a_pack(path: Path, *, frame: bytes, size: int, packed_index: bytes | None = None) -> Path:
    packed = PackedFrame(len(frame), size, hashlib.sha256(frame).hexdigest())
    index = PackIndex(folders=(), files=(("a", size, False),), links=(), frames=(packed,), receipt=RECEIPT)
    table = packed_index or zstandard.ZstdCompressor().compress(encode_index(index))
    trailer = TRAILER.pack(len(MAGIC) + len(frame), len(table), hashlib.sha256(table).digest(), MAGIC)
    path.write_bytes(MAGIC + frame + table + trailer)
    return path


UNPACK = """
import resource, sys
from pathlib import Path
from comfypin.env.pack import unpack
from comfypin.env.pack.format import PlacedFrame
from comfypin.env.errors import PackDamaged
pack, folder = sys.argv[1:]
with unpack.open_pack(Path(pack)) as source:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        index = unpack.read_index(source)
        for frame in index.placed_frames():
            unpack._write_frame(source, index, frame, folder)
    except PackDamaged as error:
        print(error.message)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def unpacked_mib(pack: Path, folder: Path) -> tuple[str, int]:
    """What a process of its own says of a pack, and by how many MiB its memory grew."""
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", UNPACK, pack, folder], capture_output=True, text=True, check=True)
    *said, grown = done.stdout.splitlines()
    return " ".join(said), int(grown)


def test_a_frame_that_says_it_is_a_gibibyte_takes_no_memory(tmp_path: Path) -> None:
    said, grown = unpacked_mib(a_pack(tmp_path / "p", frame=zeros_frame(GIB), size=4 << 20), tmp_path / "out")
    assert ("is damaged" in said, grown < 60) == (True, True)


def test_an_index_that_says_it_is_a_gibibyte_takes_no_memory(tmp_path: Path) -> None:
    pack = a_pack(tmp_path / "p", frame=b"", size=1, packed_index=zeros_frame(GIB))
    said, grown = unpacked_mib(pack, tmp_path / "out")
    assert ("is damaged" in said, grown < 60) == (True, True)


def test_a_trailer_that_says_a_huge_index_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "p"
    size = 200 << 20
    with path.open("wb") as file:
        file.write(MAGIC)
        file.truncate(len(MAGIC) + size)
        file.seek(0, 2)
        file.write(TRAILER.pack(len(MAGIC), size, bytes(32), MAGIC))
    with open_pack(path) as source, pytest.raises(PackDamaged, match="its index is too large"):
        read_index(source)


@pytest.mark.parametrize("held", [99, 101])
def test_a_frame_that_holds_less_or_more_than_its_index_says_is_refused(held: int, tmp_path: Path) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(held))
    said, _ = unpacked_mib(a_pack(tmp_path / "p", frame=frame, size=100), tmp_path / "out")
    assert "than the index says" in said or "more than 100 bytes" in said or "Frame requires too much memory" in said
