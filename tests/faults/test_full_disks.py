"""Every disk that comfypin writes to, full in the middle: nothing half, a sentence that names it, then on by itself."""

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.env.errors import DiskFull
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home as EnvHome
from comfypin.env.pack.store import FolderPackStore
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.errors import ComfypinError
from comfypin.models.errors import DiskTooSmall
from tests.support.door import clean_environ
from tests.support.faulty_server import Reply, Request, faulty_server, ranged
from tests.support.models import Home, pin_of, some_bytes
from tests.support.releases import SmallRelease, small_release
from tests.support.server import Server, serving
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.workflows import picture

pytestmark = pytest.mark.needs("unshare")
MODEL = some_bytes(20 << 20)


def a_picture(server: Server, number: int) -> dict[str, object]:
    job = {"workflow": picture(number, size=64), "output": {"mode": "file"}}
    return dict(server.ended(server.post("/run", {"input": job})["id"]))


def test_jobs_whose_outputs_do_not_fit_say_so_and_later_ones_are_delivered(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", size_mb=4) as disk,
        serving(tmp_path, "--output-dir", str(disk.path / "out")) as server,
    ):
        assert a_picture(server, 1)["status"] == "COMPLETED"
        before = disk.files()
        disk.fill()
        failed = a_picture(server, 2)
        assert failed["status"] == "FAILED"
        assert str(disk.path) not in str(failed["output"])
        assert "the disk is full" in str(failed["error"])
        assert disk.files() == before
        disk.free()
        assert a_picture(server, 3)["status"] == "COMPLETED"
        assert len(disk.files()) == len(before) + 1


def test_a_full_disk_of_temporary_files_fails_jobs_and_not_the_server(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", size_mb=4) as disk,
        serving(tmp_path, environ={"TMPDIR": str(disk.path)}) as server,
    ):
        disk.fill()
        failed = a_picture(server, 2)
        assert (failed["status"], server.ping()) == ("FAILED", 200)
        assert "No space left on device" in str(failed["error"])
        assert "whoever runs the engine has to make room" in str(failed["error"])
        assert str(disk.path) not in str(failed["output"])
        disk.free()
        assert a_picture(server, 3)["status"] == "COMPLETED"


def test_an_input_that_a_full_disk_of_temporary_files_refuses_fails_without_a_path(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", size_mb=4) as disk,
        serving(tmp_path, environ={"TMPDIR": str(disk.path)}) as server,
    ):
        large = base64.b64encode(b"\0" * 5_000_000).decode()
        job = {"workflow": picture(1), "inputs": [{"name": "a.png", "data": large}]}
        failed = server.ended(server.post("/run", {"input": job})["id"])
        assert (failed["status"], failed["output"]["error_type"]) == ("FAILED", "NoTempFolder")
        assert "(the disk is full)" in failed["error"]
        assert str(disk.path) not in str(failed["output"])
        assert a_picture(server, 3)["status"] == "COMPLETED"


@pytest.mark.parametrize("has_token", [True, False])
def test_a_server_that_starts_on_a_full_disk_ends_with_the_folder_and_the_flag(tmp_path: Path, has_token: bool) -> None:
    with small_disk(tmp_path / "disk", size_mb=1) as disk:
        disk.fill()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "comfypin.cli.main", "serve", "--lock", "demo", "--port", "0"),
                *("--state-dir", str(disk.path / "state"), "--output-dir", str(tmp_path / "out")),
            ],
            env=clean_environ(HOME=str(tmp_path), **({"COMFYPIN_TOKEN": "x"} if has_token else {})),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    (said,) = done.stderr.strip().splitlines()
    assert said == (
        f"comfypin: The jobs cannot be kept in {disk.path}/state: the disk is full. Name a local folder that can be "
        "written: --state-dir or COMFYPIN_STATE_DIR."
    )


def test_a_full_disk_of_logs_stops_no_job(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=1) as disk:
        (tmp_path / "log").symlink_to(disk.path / "log")
        with serving(tmp_path) as server:
            disk.fill()
            assert [a_picture(server, number)["status"] for number in range(20)] == ["COMPLETED"] * 20
            disk.free()
            last = a_picture(server, 30)
            assert str(last["id"]) in server.log.read_text()


def test_a_model_that_meets_a_full_disk_is_absent_and_comes_when_it_is_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=120) as disk:
        home = Home(disk.path / "models")
        is_full = [True]

        def answer(request: Request) -> Reply:
            if is_full[0]:
                disk.fill()
            return ranged(MODEL, request)

        with faulty_server(answer) as server:
            pin = pin_of(MODEL, f"{server.url}/x", target="$MODELS_DIR/unet/x.gguf")
            with pytest.raises(DiskTooSmall, match=str(disk.path)):
                home.pull(pin).raise_failures()
            assert not home.path(pin).exists()
            is_full[0] = False
            disk.free()
            home.pull(pin).raise_failures()
            assert home.path(pin).read_bytes() == MODEL


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return small_release(tmp_path_factory.mktemp("release"))


def options(release: SmallRelease, home: Path, packs: Path, **changes: object) -> RealizeOptions:
    places = SourceLocations(cache=release.root / "cache")
    env = EnvHome(root=home)
    given = RealizeOptions(home=env, models_dir=home / "models", locations=places, pack_store=FolderPackStore(packs))
    return replace(given, **changes)  # type: ignore[arg-type]


def test_a_pack_that_does_not_fit_is_no_pack(release: SmallRelease, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=64) as disk:
        packs = disk.path / "packs"
        packs.mkdir()
        disk.fill()
        with pytest.raises(DiskFull, match=str(packs)):
            realize_env(release.lock, options(release, tmp_path / "home", packs, publish=True))
        assert (tmp_path / "home/current").exists(), "the env itself is complete"
        assert [path for path in disk.files() if path.suffix == ".envpack"] == []
        disk.free()
        published = realize_env(release.lock, options(release, tmp_path / "other", packs, publish=True)).published
        assert Path(str(published)).is_file()


@pytest.mark.parametrize("free_kb", [0, 64, 400])
def test_an_env_that_meets_a_full_disk_is_not_taken_for_one(
    release: SmallRelease, tmp_path: Path, free_kb: int
) -> None:
    with small_disk(tmp_path / "disk", size_mb=1024) as disk:
        _fill_but(disk, free_kb)
        given = options(release, disk.path / "home", tmp_path / "packs")
        with pytest.raises(ComfypinError, match=str(disk.path)):
            realize_env(release.lock, given)
        assert not (disk.path / "home/current").exists()
        disk.free()
        realized = realize_env(release.lock, given)
        assert realized.folder.is_dir()


def _fill_but(disk: SmallDisk, free_kb: int) -> None:
    keep = disk.path / "keep"
    keep.write_bytes(b"\0" * free_kb * 1024)
    disk.fill()
    keep.unlink()
