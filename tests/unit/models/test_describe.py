"""What a model is, learned without keeping it."""

from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.models.describe import describe_model
from comfypin.models.errors import SourceFailed, UnknownSource
from comfypin.models.interface import ExpectedFile, SourceFacts
from comfypin.models.sources.local import LocalModelFile, LocalSource


class Telling:
    """A source that tells a digest, and whose bytes nobody may read."""

    def accepts(self, uri: str) -> bool:
        return uri.startswith("told://")

    def open(self, uri: str, wanted: ExpectedFile, *, start: int = 0, length: int | None = None) -> LocalModelFile:
        raise AssertionError("its bytes were read")

    def facts(self, uri: str) -> SourceFacts:
        return SourceFacts(uri=f"{uri}@1", filename="x", sha256=Digest("ab" * 32), size_bytes=7)


def test_a_source_that_tells_all_is_believed_without_reading() -> None:
    described = describe_model("told://x", [LocalSource(), Telling()])
    assert (described.facts.uri, described.sha256, described.size_bytes) == ("told://x@1", Digest("ab" * 32), 7)


def test_a_source_that_tells_no_digest_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"model")
    described = describe_model((tmp_path / "m").as_uri(), [LocalSource()])
    assert (described.sha256, described.size_bytes) == (Digest.of(b"model"), 5)


def test_an_address_that_no_source_takes_is_said() -> None:
    with pytest.raises(UnknownSource):
        describe_model("ftp://x", [LocalSource()])


def test_a_file_that_is_absent_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed):
        describe_model((tmp_path / "absent").as_uri(), [LocalSource()])
