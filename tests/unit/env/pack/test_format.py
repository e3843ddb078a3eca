"""What an index of an env pack may say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.env.pack.format import PackedFrame, PackIndex, decode_index, encode_index, frame_segments


def an_index(**changes: object) -> PackIndex:
    values: dict[str, object] = {
        "folders": ("a",),
        "files": (("a/b", 3, False),),
        "links": (("a/l", "b"),),
        "frames": (PackedFrame(5, 3, "0" * 64),),
        "receipt": {},
    }
    return PackIndex(**{**values, **changes})  # type: ignore[arg-type]


def test_an_index_survives_its_encoding() -> None:
    assert decode_index(encode_index(an_index())) == an_index()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a/./b", "x\0y", "."])
def test_a_name_that_leaves_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"stay inside|not listed|twice"):
        decode_index(encode_index(an_index(files=((name, 3, False),))))


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "..", "b/../..", "a/../b", ""])
def test_a_link_that_leads_out_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
        decode_index(encode_index(an_index(links=(("l", target),))))


def test_nothing_can_be_written_through_a_link() -> None:
    through = an_index(folders=("a",), files=(("l/b", 3, False),), links=(("l", "a"),))
    with pytest.raises(ValueError, match="not listed"):
        decode_index(encode_index(through))


def test_a_link_cannot_take_the_place_of_a_folder() -> None:
    with pytest.raises(ValueError, match="twice"):
        decode_index(encode_index(an_index(links=(("a", "b"),))))


@pytest.mark.parametrize("sizes", [(2,), (4,), (1, 1), (3, 0), (-1, 4), ()])
def test_frames_hold_as_many_bytes_as_the_files(sizes: tuple[int, ...]) -> None:
    frames = tuple(PackedFrame(5, size, "0" * 64) for size in sizes)
    with pytest.raises(ValueError, match=r"frame"):
        decode_index(encode_index(an_index(frames=frames)))


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 17))
def test_every_byte_of_every_file_is_in_one_frame(sizes: list[int], frame_bytes: int) -> None:
    total = sum(sizes)
    cuts = [min(frame_bytes, total - start) for start in range(0, total, frame_bytes)]
    files = tuple((f"f{number}", size, False) for number, size in enumerate(sizes))
    index = an_index(files=files, folders=(), links=(), frames=tuple(PackedFrame(5, cut, "0" * 64) for cut in cuts))
    found = [
        (number, byte)
        for frame in decode_index(encode_index(index)).placed_frames()
        for number, offset, size in frame_segments(files, frame)
        for byte in range(offset, offset + size)
    ]
    assert found == [(number, byte) for number, size in enumerate(sizes) for byte in range(size)]


@given(st.binary(max_size=200))
def test_noise_is_never_an_index(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_index(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_other_json_is_never_an_index(tree: object) -> None:
    with pytest.raises(ValueError):
        decode_index(json.dumps(tree).encode())


def test_an_index_of_nothing_but_brackets_is_not_parsed() -> None:
    with pytest.raises(ValueError, match="more than 1,000,000 entries"):
        decode_index(b'{"folders":[' + b"[]," * 1_000_001 + b"[]]}")


@pytest.mark.parametrize("packed", [100_000, 1 << 40])
def test_a_frame_is_not_larger_than_what_it_holds(packed: int) -> None:
    with pytest.raises(ValueError, match="larger than its content can be"):
        decode_index(encode_index(an_index(frames=(PackedFrame(packed, 3, "0" * 64),))))
