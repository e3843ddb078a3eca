"""Digests are sha256 in one spelling; canonical JSON has one spelling too."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.digest import Digest, canonical_json

HEX = hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("text", [HEX, HEX.upper(), f"sha256:{HEX}", f" SHA256:{HEX} "])
def test_every_spelling_of_a_digest_is_read(text: str) -> None:
    assert Digest.parse(text) == Digest(HEX)


@pytest.mark.parametrize("text", ["", "sha256:", HEX[:-1], HEX + "0", "md5:" + HEX, HEX[:-1] + "g"])
def test_what_is_not_a_sha256_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="sha256"):
        Digest.parse(text)


def test_a_file_and_its_bytes_have_one_digest(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "f").write_bytes(data)
    assert Digest.of_file(tmp_path / "f") == Digest.of(data) == Digest(hashlib.sha256(data).hexdigest())


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_the_order_of_keys_does_not_change_the_bytes(value: dict[str, object]) -> None:
    reversed_value = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(reversed_value)  # type: ignore[arg-type]


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError):
        canonical_json({"x": float("nan")})
