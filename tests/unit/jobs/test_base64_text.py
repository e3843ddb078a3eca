"""Base64 as clients send it, and as it comes when something on the way has damaged it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.jobs.base64_text import decode_base64

DATA = bytes(range(256)) + b"\xfb\xff\xfe"
STANDARD = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        URL_SAFE,
        STANDARD.rstrip("="),
        URL_SAFE.rstrip("="),
        f"  {STANDARD}\n",
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n  "),
    ],
)
def test_every_way_of_writing_it_gives_the_bytes(text: str) -> None:
    assert decode_base64(text) == DATA


@given(st.binary(max_size=100))
def test_unpadded_and_url_safe_is_never_ambiguous(data: bytes) -> None:
    assert decode_base64(base64.urlsafe_b64encode(data).decode().rstrip("=")) == data


@pytest.mark.parametrize(
    "text, reason",
    [
        (STANDARD.replace("+", " "), "has spaces inside"),
        (STANDARD.replace("+", "%2B"), "'%' in it says"),
        (STANDARD[:-3] + "=", "incomplete"),
        (STANDARD[:101], "incomplete"),
        (STANDARD[:102], "ends within a byte"),
        (STANDARD[:40] + "=" + STANDARD[40:], "not base64"),
        (f"{STANDARD[:-4]}-{STANDARD[-4:]}", "mixes the two alphabets"),
        ("it is a sentence.", "spaces"),
        ("naïve", "it contains 'ï'"),
    ],
)
def test_what_was_damaged_is_refused(text: str, reason: str) -> None:
    assert "+" in STANDARD
    with pytest.raises(ValueError, match=reason):
        decode_base64(text)
