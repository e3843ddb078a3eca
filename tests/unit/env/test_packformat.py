"""What an index of an env pack may say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.env.packformat import MAGIC, Frame, Index, Segment, decode_index, encode_index

START = len(MAGIC)


def an_index(**changes: object) -> Index:
    frame = Frame(START, 5, 3, "0" * 64, (Segment(0, 0, 3),))
    values: dict[str, object] = {
        "folders": ("a",),
        "files": (("a/b", 3, False),),
        "links": (("a/l", "b"),),
        "frames": (frame,),
        "receipt": {},
    }
    return Index(**{**values, **changes})  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    "segments",
    [
        (Segment(0, 0, 2), Segment(0, 1, 1)),
        (Segment(0, 0, 2),),
        (Segment(1, 0, 3),),
        (Segment(0, 1, 3),),
        (Segment(0, -3, 3),),
        (),
    ],
)
def test_every_byte_of_a_file_is_there_once(segments: tuple[Segment, ...]) -> None:
    with pytest.raises(ValueError, match=r"bytes|frame"):
        decode_index(encode_index(an_index(frames=(Frame(START, 5, 3, "0" * 64, segments),))))


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
