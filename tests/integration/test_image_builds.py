"""How images are built, for real: what two builds share, what is baked, and by which builder."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.lock.codec import render_lock
from comfypin.lock.model import EngineSpec, Lock, ModelPin, PythonPins
from tests.support.containers import BASE, HARDENED, SECRET, Containers, assert_no_secret, buildah, files_over_http
from tests.support.models import safetensors
from tests.support.releases import SmallRelease, make_wheel, small_release

pytestmark = [
    pytest.mark.needs("dockerd"),
    pytest.mark.needs("mmdebstrap"),
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("containers"),
]

# The layers of an image without models, from the base up.
LAYERS = (
    *("base", "mounts", "system", "torch", "packages", "comfyui", "nodes"),
    *("dependencies", "comfypin", "receipt", "lock", "contents", "workdir"),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    """A release with a ComfyUI of our own making, two nodes, and four packages, one of which is named torch."""
    release = small_release(tmp_path_factory.mktemp("small"))
    torch = make_wheel(release.root / "wheels", "torch", "2.9.0", {"torch/__init__.py": "x = {'a', 'b', 'c'}\n" * 500})
    python = replace(release.lock.python, packages=(*release.lock.python.packages, torch))
    return release.changed(python=python)


@pytest.fixture(scope="module")
def built(daemon: Containers, demo: object, small: SmallRelease, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The layers of that release's image, `small:1`."""
    return build(daemon, small, tmp_path_factory.mktemp("built"), tag="small:1")


@pytest.mark.soak
def test_building_again_from_nothing_gives_the_same_layers(
    daemon: Containers, built: list[str], small: SmallRelease, tmp_path: Path
) -> None:
    assert build(daemon, small, tmp_path, "--no-cache", tag="small:again") == built


def test_a_changed_node_changes_its_layer_and_the_receipt_and_the_lock(
    daemon: Containers, built: list[str], small: SmallRelease, tmp_path: Path
) -> None:
    commit = small.nodes["node-one"].commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\nCHANGED = True\n"})
    pins = tuple(replace(pin, commit=commit) if pin.name == "node-one" else pin for pin in small.lock.custom_nodes)
    after = build(daemon, small.changed(custom_nodes=pins), tmp_path, tag="small:2")
    assert changed(built, after) == {"nodes", "receipt", "lock", "contents"}
    done = daemon.run(*HARDENED, "small:2", "comfypin", "env", "status", "--no-models")
    assert "what its lock says" in done.stdout


def test_another_release_with_the_same_torch_shares_its_layer(
    daemon: Containers, built: list[str], small: SmallRelease, tmp_path: Path
) -> None:
    packages = tuple(pin for pin in small.lock.python.packages if pin.name != "gamma")
    other = small.changed(version_name="other", custom_nodes=(), python=replace(small.lock.python, packages=packages))
    assert changed(built, build(daemon, other, tmp_path, tag="other:1")) == {
        "packages",
        "nodes",
        "receipt",
        "lock",
        "contents",
    }


KNOWN_DIGESTS = """
from pathlib import Path
from comfypin.models.store import BlobStore
store = BlobStore(Path("/opt/comfy/models/.comfypin"))
for name in ("one", "two"):
    path = Path(f"/opt/comfy/models/vae/{name}.safetensors").resolve()
    print(store.digests.known_digest(path, path.stat()))
"""


def changed(before: list[str], after: list[str]) -> set[str]:
    return {name for name, one, other in zip(LAYERS, before, after, strict=True) if one != other}


def build(daemon: Containers, release: SmallRelease, folder: Path, *words: str, tag: str) -> list[str]:
    """The layers of its image, built from a vendor folder: a build cannot see this machine's files."""
    lock = release.write_lock()
    vendor = str(folder / "vendor")
    daemon.comfypin("lock", "vendor", "--lock", str(lock), vendor, cwd=folder)
    flags = ("--release", str(lock), "--tag", tag, "--base", BASE, "--vendor", vendor, *words)
    return list(daemon.build(*flags, cwd=folder)["layers"])  # type: ignore[call-overload]


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Lock]:
    """A release of two models that a server here has, and no env."""
    contents = {"one.safetensors": safetensors(b"1" * 300_000), "two.safetensors": safetensors(b"2" * 200_000)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    with files_over_http(tmp_path) as address:
        pins = tuple(
            ModelPin(
                name=name,
                target_path=f"$MODELS_DIR/vae/{name}",
                sha256=Digest.of(data),
                size_bytes=len(data),
                sources=(f"{address}/{name}",),
            )
            for name, data in contents.items()
        )
        yield Lock(
            version_name="models", models=pins, python=PythonPins(version="3.11"), engine=EngineSpec(kind="embedded")
        )


def test_each_baked_model_is_a_layer_of_its_own(
    daemon: Containers, demo: dict[str, Any], models: Lock, tmp_path: Path
) -> None:
    lock = tmp_path / "comfy-models.lock.json"
    words = ("--release", str(lock), "--base", BASE, "--bake", "env+models")
    lock.write_bytes(render_lock(models))
    secret = ("--secret", "id=HF_TOKEN,env=HF_TOKEN")
    made = daemon.build(*words, *secret, "--tag", "models:2", environ={"HF_TOKEN": SECRET}, cwd=tmp_path)
    both = list(made["layers"])  # type: ignore[call-overload]
    assert len(both) == len(demo["layers"]) + 2
    assert changed(demo["layers"], [*both[:7], *both[9:]]) == {"lock", "contents"}
    verify = ("comfypin", "models", "verify", "--json")
    said = json.loads(daemon.run(*HARDENED, "--user", "1000", "models:2", *verify).stdout)
    assert "two.safetensors" in json.dumps(said), said
    assert daemon.run("models:2", "stat", "-c", "%U", "/opt/comfy/models/vae/one.safetensors").stdout == "comfy\n"
    # Each container finds their digests in the layers, whatever their inodes are there.
    known = daemon.run(*HARDENED, "--user", "1000", "models:2", "/opt/comfypin/bin/python", "-c", KNOWN_DIGESTS)
    assert known.stdout.split() == [str(model.sha256) for model in models.models]

    assert_no_secret(daemon, "models:2", tmp_path / "saved.tar")

    lock.write_bytes(render_lock(replace(models, models=models.models[:1])))
    one = list(daemon.build(*words, "--tag", "models:1", cwd=tmp_path)["layers"])  # type: ignore[call-overload]
    assert one[:8] == both[:8], "the model that stayed is the same layer"


def test_with_nothing_baked_it_takes_its_env_from_a_pack(
    daemon: Containers, built: list[str], small: SmallRelease, tmp_path: Path
) -> None:
    packs = tmp_path / "packs"
    packs.mkdir()
    packs.chmod(0o777)
    here = ("-v", f"{packs}:/packs")
    daemon.run(*here, "small:1", "comfypin", "env", "pack", "/packs")
    empty = build(daemon, small, tmp_path, "--bake", "nothing", tag="empty:1")
    assert len(empty) == len(built)
    script = "comfypin realize --no-models --offline && comfypin env status --no-models"
    done = daemon.run(*here, "--env", "COMFYPIN_PACKS=/packs", "empty:1", "sh", "-c", script)
    assert "what its lock says" in done.stdout
    none = daemon.run("empty:1", "comfypin", "realize", "--no-models", "--offline", check=False)
    assert none.returncode != 0, "without a pack and without a network there is no env"


@pytest.mark.soak
@pytest.mark.needs("buildah")
@pytest.mark.needs("podman")
def test_buildah_builds_the_same_dockerfile(daemon: Containers, demo: dict[str, Any], tmp_path: Path) -> None:
    with buildah(daemon, tmp_path / "b") as other:
        made = other.build("--release", "demo", "--tag", "demo:b", "--base", BASE)
        assert len(made["layers"]) == len(demo["layers"]) - 1  # type: ignore[arg-type] - it has none for no files
        words = ("run", "--isolation=chroot", "--user", "1000")
        workflow = "cd /app && python -m rp_handler.main --lock demo --output base64 --workflow workflows/demo.json"
        words_of_podman = ("--release", "demo", "--tag", "demo:b", "--base", BASE, "--builder", "podman")
        assert other.build(*words_of_podman)["layers"] == made["layers"]
        name = other.program("buildah", "from", "demo:b").strip()
        picture = other.program("buildah", *words, name, "--", "sh", "-c", workflow)
        assert picture.startswith("iVBORw0KGgo"), picture[:100]


@pytest.mark.soak
@pytest.mark.needs("buildah")
def test_a_written_context_is_all_that_others_need_to_build_it(daemon: Containers, tmp_path: Path) -> None:
    context = tmp_path / "context"
    # No program that builds answers here: writing needs none.
    daemon.comfypin("image", "build", "--release", "demo", "--base", BASE, "--context-dir", str(context))
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    secret = ("--secret", f"id=ca,src={certificates}") if certificates.is_file() else ()
    with buildah(daemon, tmp_path / "b") as other:
        # As a platform does it that knows a Dockerfile and nothing of comfypin: no argument, no label.
        other.program("buildah", "build", "--network", "host", *secret, "--tag", "by-hand:1", str(context))
        name = other.program("buildah", "from", "by-hand:1").strip()
        shown = json.loads(other.program("buildah", "inspect", "--type", "image", "by-hand:1"))
        command = shown["OCIv1"]["config"]
        assert [*command["Entrypoint"], *command.get("Cmd", [])], command
        workflow = "cd /app && python -m rp_handler.main --lock demo --output base64 --workflow workflows/demo.json"
        picture = other.program(
            *("buildah", "run", "--isolation=chroot", "--user", "1000", name, "--"),
            *(*command["Entrypoint"], "sh", "-c", workflow),
        )
        assert picture.startswith("iVBORw0KGgo"), picture[:100]
