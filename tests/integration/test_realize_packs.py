"""Env packs: the same env from one file, in a folder or a bucket; verified, and never written outside its root."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.env.errors import BuildChanged, PackDamaged, PackUnfit
from comfypin.env.file_manifest import hash_files
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages, venv_python
from comfypin.env.pack.store import BucketPackStore, FolderPackStore
from comfypin.env.pack.unpack import open_pack, unpack_pack
from comfypin.env.pack.write import write_pack
from comfypin.env.realize import RealizedEnv, RealizeOptions, realize_env
from comfypin.env.status import check_env
from comfypin.storage.azure import AzureStore
from comfypin.storage.local import LocalStore
from tests.support.object_servers import AzureServer
from tests.support.releases import SmallRelease, small_release


def options(root: Path, name: str, **changes: object) -> RealizeOptions:
    places = SourceLocations(cache=root / "cache")
    home = Home(root=root / name)
    given = RealizeOptions(
        home=home, models_dir=home.root / "models", locations=places, pack_store=FolderPackStore(root / "packs")
    )
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return small_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def built(release: SmallRelease) -> RealizedEnv:
    return realize_env(release.lock, options(release.root, "built", publish=True))


@pytest.fixture
def pack(release: SmallRelease, built: RealizedEnv) -> Path:
    return Path(str(built.published))


def test_what_was_built_is_published_under_its_digest(built: RealizedEnv, pack: Path) -> None:
    assert pack.name == f"{built.receipt.env_digest.hex}.cpython-311-linux-x86_64.envpack"


def test_a_pack_gives_the_same_env_as_building(release: SmallRelease, built: RealizedEnv) -> None:
    unpacked = realize_env(release.lock, options(release.root, "unpacked"))
    assert unpacked.action == "unpack"
    assert unpacked.receipt == built.receipt
    assert hash_files(unpacked.folder) == hash_files(built.folder)
    assert check_env(Home(root=release.root / "unpacked"), release.lock).drifts == ()


def test_its_byte_code_is_used_as_it_is_in_another_place(release: SmallRelease, built: RealizedEnv) -> None:
    unpacked = realize_env(release.lock, options(release.root, "elsewhere/deep"))
    loud = [venv_python(unpacked.folder), "-v", "-c", "import alpha.more, beta, gamma"]
    said = subprocess.run(loud, capture_output=True, text=True, check=True).stderr
    for module in ("alpha", "alpha.more", "beta", "gamma"):
        folder = site_packages(unpacked.folder)
        assert f"# {folder}" in said
        assert f"wrote '{folder}/{module.replace('.', '/')}" not in said
    assert said.count("# code object from") >= 4
    assert "# wrote" not in said


def test_byte_code_that_is_not_what_the_pack_brought_is_named(release: SmallRelease, built: RealizedEnv) -> None:
    unpacked = realize_env(release.lock, options(release.root, "tampered"))
    (compiled,) = (site_packages(unpacked.folder) / "alpha/__pycache__").glob("more.*.pyc")
    compiled.write_bytes(flip(compiled.read_bytes(), compiled.stat().st_size - 3))
    (site_packages(unpacked.folder) / "gamma/__pycache__").rename(release.root / "removed")
    (drift,) = check_env(Home(root=release.root / "tampered"), release.lock).drifts
    assert (drift.kind, drift.paths) == ("bytecode-changed", (str(compiled.relative_to(unpacked.folder)),))


def test_an_edit_of_a_node_counts_in_spite_of_byte_code(release: SmallRelease, built: RealizedEnv) -> None:
    unpacked = realize_env(release.lock, options(release.root, "edited"))
    helper = unpacked.folder / "ComfyUI/custom_nodes/node-one/lib/helper.py"
    helper.write_text("def f():\n    return 'edited'\n")
    asked = [venv_python(unpacked.folder), "-c", "import helper; print(helper.f())"]
    done = subprocess.run(asked, cwd=helper.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "edited"


def test_an_env_that_is_there_already_is_published_too(
    release: SmallRelease, built: RealizedEnv, tmp_path: Path
) -> None:
    again = options(release.root, "built", pack_store=FolderPackStore(tmp_path / "packs"), publish=True)
    realized = realize_env(release.lock, again)
    assert realized.action == "keep"
    assert Path(str(realized.published)).is_file()


def test_a_bucket_holds_packs_too(release: SmallRelease, tmp_path: Path) -> None:
    shelf = BucketPackStore(LocalStore(tmp_path / "bucket"))
    first = realize_env(release.lock, options(release.root, "to-bucket", pack_store=shelf, publish=True))
    second = realize_env(release.lock, options(release.root, "from-bucket", pack_store=shelf))
    assert (first.action, second.action) == ("build", "unpack")
    assert hash_files(second.folder) == hash_files(first.folder)


def test_an_azure_container_holds_packs_too(release: SmallRelease, azurite: AzureServer) -> None:
    shelf = BucketPackStore(AzureStore(azurite.config(azurite.new_bucket("packs")), prefix="envs"))
    first = realize_env(release.lock, options(release.root, "to-azure", pack_store=shelf, publish=True))
    second = realize_env(release.lock, options(release.root, "from-azure", pack_store=shelf))
    assert (first.action, second.action) == ("build", "unpack")
    assert hash_files(second.folder) == hash_files(first.folder)


def test_the_command_packs(release: SmallRelease, built: RealizedEnv, tmp_path: Path) -> None:
    home = str(release.root / "built")
    assert main(["env", "pack", str(tmp_path / "volume"), "--home", home]) == 0
    assert len(list((tmp_path / "volume").iterdir())) == 1


def test_what_was_added_by_hand_is_not_packed(release: SmallRelease, tmp_path: Path) -> None:
    realized = realize_env(release.lock, options(release.root, "with-extras", pack_store=None))
    (realized.folder / "ComfyUI/user").mkdir()
    (realized.folder / "ComfyUI/user/secret.json").write_text("{}")
    (realized.folder / "ComfyUI/stray.py").write_text("")
    write_pack(realized.folder, tmp_path / "pack")
    (tmp_path / "out").mkdir()
    with open_pack(tmp_path / "pack") as source:
        unpack_pack(source, tmp_path / "out", key=realized.receipt.key)
    assert not (tmp_path / "out/ComfyUI/user").exists()
    assert not (tmp_path / "out/ComfyUI/stray.py").exists()


def test_an_env_that_drifted_is_not_packed(release: SmallRelease, tmp_path: Path) -> None:
    realized = realize_env(release.lock, options(release.root, "drifted", pack_store=None))
    (realized.folder / "ComfyUI/main.py").write_text("changed")
    with pytest.raises(BuildChanged, match=r"main\.py"):
        write_pack(realized.folder, tmp_path / "pack")
    assert list(tmp_path.iterdir()) == []


# -- damage


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut by one byte": lambda data: data[:-1],
    "longer by one byte": lambda data: data + b"\0",
    "a bit of a frame": lambda data: flip(data, 100),
    "a bit of the index": lambda data: flip(data, len(data) - 200),
    "a bit of the trailer": lambda data: flip(data, len(data) - 60),
    "empty": lambda _: b"",
    "something else": lambda _: b"<html>404</html>" * 100,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_pack_is_refused(name: str, pack: Path, built: RealizedEnv, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(DAMAGES[name](pack.read_bytes()))
    (tmp_path / "out").mkdir()
    with open_pack(tmp_path / "pack") as source, pytest.raises(PackDamaged):
        unpack_pack(source, tmp_path / "out", key=built.receipt.key)


def test_every_bit_of_a_pack_matters(pack: Path, built: RealizedEnv, tmp_path: Path) -> None:
    data = pack.read_bytes()
    for number in range(40):
        (tmp_path / "pack").write_bytes(flip(data, (number * 7919 * 13) % len(data)))
        out = tmp_path / f"out{number}"
        out.mkdir()
        with open_pack(tmp_path / "pack") as source, pytest.raises(PackDamaged):
            unpack_pack(source, out, key=built.receipt.key)


def test_a_pack_of_another_env_is_refused(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with open_pack(pack) as source, pytest.raises(PackUnfit):
        unpack_pack(source, tmp_path / "out", key="f" * 64)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_pack_is_built_around_and_replaced(release: SmallRelease, pack: Path, tmp_path: Path) -> None:
    shelf = FolderPackStore(tmp_path / "packs")
    shelf.root.mkdir()
    (shelf.root / pack.name).write_bytes(flip(pack.read_bytes(), 100))
    said: list[str] = []
    first = realize_env(release.lock, options(tmp_path, "one", pack_store=shelf, publish=True, report=said.append))
    assert first.action == "build"
    assert any("damaged" in line for line in said)
    assert realize_env(release.lock, options(tmp_path, "two", pack_store=shelf)).action == "unpack"
