"""Where an output is, as commands print it: people get a link that opens, scripts the object's own address."""

import io
import sys

import pytest

from comfypin.cli.common import shown_address

LINK = "https://pictures.example.com/a.png"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("uri", "url", "on_terminal", "piped"),
    [
        ("s3://b/a.png", LINK, LINK, "s3://b/a.png"),
        ("gs://b/a.png", LINK, LINK, "gs://b/a.png"),
        ("az://b/a.png", None, "az://b/a.png", "az://b/a.png"),
        ("/out/a.png", LINK, "/out/a.png", "/out/a.png"),
    ],
)
def test_a_terminal_shows_the_link_of_a_bucket(
    monkeypatch: pytest.MonkeyPatch, uri: str, url: str | None, on_terminal: str, piped: str
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert shown_address(uri, url) == on_terminal
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert shown_address(uri, url) == piped
