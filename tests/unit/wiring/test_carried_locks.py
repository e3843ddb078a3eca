"""A lock that reaches a container by a variable: as text, or by its address and sha256."""

from pathlib import Path

import pytest

from comfypin.cli.common import read_release
from comfypin.cli.doctor import examine_machine
from comfypin.digest import Digest
from comfypin.lock.carried import carry_lock
from comfypin.lock.errors import LockAddressUnpinned
from comfypin.settings.environment import Settings
from comfypin.tools.errors import DownloadWrong

LOCK = b'{"schema_version": 3, "version_name": "carried", "engine": {"kind": "embedded"}}'


def settings(folder: Path, **variables: str) -> Settings:
    # As in an image, which has a release of its own.
    return Settings({"COMFY_VERSION_NAME": "demo", "COMFYPIN_CACHE_DIR": str(folder / "cache"), **variables})


def test_a_carried_lock_comes_before_the_release_of_the_image(tmp_path: Path) -> None:
    assert read_release(None, settings(tmp_path, COMFYPIN_LOCK_DATA=carry_lock(LOCK))).version_name == "carried"


def test_a_path_comes_before_a_carried_lock(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(LOCK.replace(b"carried", b"own"))
    given = settings(tmp_path, COMFYPIN_LOCK_DATA=carry_lock(LOCK), LOCK_PATH=str(tmp_path / "own.json"))
    assert read_release(None, given).version_name == "own"


def test_a_lock_by_address_is_fetched_once(tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_bytes(LOCK)
    given = settings(tmp_path, COMFYPIN_LOCK_URL=f"{file.as_uri()}#sha256={Digest.of(LOCK).hex}")
    assert read_release(None, given).version_name == "carried"
    file.unlink()
    assert read_release(None, given).version_name == "carried"


def test_another_lock_at_the_address_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_bytes(LOCK)
    with pytest.raises(DownloadWrong):
        read_release(None, settings(tmp_path, COMFYPIN_LOCK_URL=f"{file.as_uri()}#sha256={'0' * 64}"))


def test_an_address_without_a_sha256_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockAddressUnpinned, match="COMFYPIN_LOCK_URL"):
        read_release(None, settings(tmp_path, COMFYPIN_LOCK_URL="https://example.org/lock.json"))


def test_doctor_finds_a_carried_lock(tmp_path: Path) -> None:
    given = Settings({"COMFYPIN_LOCK_DATA": carry_lock(LOCK)})
    (check,) = [check for check in examine_machine(given) if check.name == "release"]
    assert (check.verdict, check.found) == ("good", "carried (embedded) from COMFYPIN_LOCK_DATA")
