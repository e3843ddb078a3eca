"""A lock as the text of a variable."""

import base64
import zlib

import pytest

from comfypin.lock.carried import carry_lock, read_carried_lock
from comfypin.lock.errors import CarriedLockInvalid


def test_a_lock_comes_back_as_it_was() -> None:
    data = b'{"schema_version": 3}' * 100
    text = carry_lock(data)
    assert len(text) < len(data)
    assert read_carried_lock(text, where="X") == data


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"no zlib").decode(), "ü"])
def test_what_is_no_lock_is_refused_by_its_variable(text: str) -> None:
    with pytest.raises(CarriedLockInvalid, match="COMFYPIN_LOCK_DATA"):
        read_carried_lock(text, where="COMFYPIN_LOCK_DATA")


def test_a_lock_that_was_cut_off_is_refused() -> None:
    cut = base64.b64encode(zlib.compress(b"x" * 1000)[:-4]).decode()
    with pytest.raises(CarriedLockInvalid, match="cut off"):
        read_carried_lock(cut, where="X")


def test_a_few_bytes_that_unpack_to_gigabytes_are_refused() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(65 << 20), 9)).decode()
    with pytest.raises(CarriedLockInvalid, match="larger than any lock"):
        read_carried_lock(bomb, where="X")
