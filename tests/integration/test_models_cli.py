"""`comfypin models` and its door, as a user meets them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.faulty_server import faulty_server, ranged
from tests.support.models import safetensors, some_bytes

DOOR = str(Path(__file__).parent.parent.parent / "scripts" / "verify_models.py")
DATA = safetensors(some_bytes(50_000))
OTHER = safetensors(some_bytes(70_000, seed=2))


def write_lock(folder: Path, *models: dict[str, object], name: str = "demo") -> Path:
    path = folder / f"{name}.lock.json"
    path.write_text(json.dumps({"schema_version": 3, "version_name": name, "models": list(models)}))
    return path


def model(data: bytes, source: Path | str, *, target: str = "vae/x.safetensors", **more: object) -> dict[str, object]:
    if isinstance(source, Path):
        source.write_bytes(data)
    return {
        "name": target.rpartition("/")[2],
        "target_path": f"$MODELS_DIR/{target}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "sources": [str(source)],
        **more,
    }


def comfypin(*words: object, program: tuple[str, ...] = ("-m", "comfypin.cli.main"), **variables: str):
    environ = {name: value for name, value in os.environ.items() if name not in {"MODELS_DIR", "LOCK_PATH", "HF_TOKEN"}}
    command = [sys.executable, *program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**environ, **variables}, check=False)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_pull_prints_each_place_and_its_source(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    done = comfypin("models", "pull", "--lock", lock, "--models-dir", models_dir)
    assert done.returncode == 0
    assert done.stdout == f"{models_dir}/vae/x.safetensors: fetched from {tmp_path}/source\n"
    assert "1 model in" in done.stderr


def test_pull_says_the_same_in_json(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    done = comfypin("models", "pull", "--lock", lock, "--models-dir", models_dir, "--json")
    (said,) = json.loads(done.stdout)["models"]
    assert (said["state"], said["size_bytes"], said["pinned"]) == ("fetched", len(DATA), True)
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())


def test_a_model_that_cannot_be_had_is_exit_code_50(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, {**model(DATA, tmp_path / "s"), "sources": ["/nowhere"]})
    done = comfypin("models", "pull", "--lock", lock, "--models-dir", models_dir)
    assert done.returncode == 50
    assert "/nowhere: there is no such file here" in done.stderr


def test_the_door_repairs_with_its_old_flags(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    (models_dir / "vae").mkdir(parents=True)
    (models_dir / "vae" / "x.safetensors").write_bytes(OTHER)
    flags = (
        "--lock",
        lock,
        "--models-dir",
        models_dir,
        "--timeout",
        "60",
        "--cache-dir",
        tmp_path / "cache",
        "--verbose",
    )
    done = comfypin(*flags, "--verbose", program=(DOOR,))
    assert done.returncode == 0, done.stderr
    assert (models_dir / "vae" / "x.safetensors").read_bytes() == DATA
    (aside,) = (tmp_path / "cache" / "aside").iterdir()
    assert aside.read_bytes() == OTHER


@pytest.mark.parametrize(("flags", "kept"), [((), [OTHER]), (("--overwrite",), [])])
def test_the_door_keeps_a_corrupt_file_aside_unless_it_may_overwrite(
    tmp_path: Path, models_dir: Path, flags: tuple[str, ...], kept: list[bytes]
) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    (models_dir / "vae").mkdir(parents=True)
    (models_dir / "vae" / "x.safetensors").write_bytes(OTHER)
    done = comfypin("--lock", lock, "--models-dir", models_dir, *flags, program=(DOOR,))
    assert done.returncode == 0, done.stderr
    assert (models_dir / "vae" / "x.safetensors").read_bytes() == DATA
    assert [path.read_bytes() for path in models_dir.glob(".comfypin/aside/*")] == kept


def test_the_door_reads_the_first_schema(tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    lock = tmp_path / "comfy-old.lock.json"
    entry = {
        "name": "x",
        "source": f"file://{tmp_path}/source",
        "target_path": "$MODELS_DIR/vae/x.safetensors",
        "checksum": f"sha256:{hashlib.sha256(DATA).hexdigest()}",
    }
    lock.write_text(json.dumps({"schema_version": 1, "version_name": "old", "models": [entry]}))
    done = comfypin("--lock", lock, program=(DOOR,), MODELS_DIR=str(models_dir))
    assert done.returncode == 0, done.stderr
    assert (models_dir / "vae" / "x.safetensors").read_bytes() == DATA


def test_verify_changes_nothing_and_names_what_is_wrong(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    (models_dir / "vae").mkdir(parents=True)
    (models_dir / "vae" / "x.safetensors").write_bytes(OTHER)
    done = comfypin("models", "verify", "--lock", lock, "--models-dir", models_dir)
    assert done.returncode == 50
    assert f"has {len(OTHER)} bytes instead of {len(DATA)}" in done.stderr
    assert (models_dir / "vae" / "x.safetensors").read_bytes() == OTHER


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_path": "$MODELS_DIR/../x.safetensors"}, ".."),
        ({"target_path": "/etc/x.safetensors"}, "/etc/x.safetensors"),
        ({"target_path": "$MODELS_DIR/vae/x.ckpt"}, "can run code"),
    ],
)
def test_hostile_locks_are_refused(tmp_path: Path, models_dir: Path, change: dict[str, str], says: str) -> None:
    lock = write_lock(tmp_path, {**model(DATA, tmp_path / "source"), **change})
    done = comfypin("models", "pull", "--lock", lock, "--models-dir", models_dir)
    assert done.returncode in {10, 50}
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_ls_tells_size_releases_and_places(tmp_path: Path, models_dir: Path) -> None:
    for name in ("one", "two"):
        lock = write_lock(tmp_path, model(DATA, tmp_path / "source"), name=name)
        comfypin("models", "pull", "--lock", lock, "--models-dir", models_dir)
    (blob,) = json.loads(comfypin("models", "ls", "--models-dir", models_dir, "--json").stdout)["blobs"]
    assert (blob["size_bytes"], blob["releases"]) == (len(DATA), ["one", "two"])
    assert blob["targets"] == ["$MODELS_DIR/vae/x.safetensors"]


@pytest.fixture
def two_releases(tmp_path: Path, models_dir: Path) -> Path:
    shared = model(DATA, tmp_path / "a", target="vae/shared.safetensors")
    extra = model(OTHER, tmp_path / "b", target="vae/extra.safetensors")
    for name, models in (("old", [shared, extra]), ("new", [shared])):
        comfypin("models", "pull", "--lock", write_lock(tmp_path, *models, name=name), "--models-dir", models_dir)
    return models_dir


def test_gc_removes_what_no_kept_release_names(two_releases: Path) -> None:
    done = comfypin("models", "gc", "--models-dir", two_releases, "--keep-releases", "new")
    assert done.returncode == 0, done.stderr
    assert (two_releases / "vae" / "shared.safetensors").exists()
    assert not (two_releases / "vae" / "extra.safetensors").is_symlink()


def test_gc_keeps_to_a_budget_and_to_what_is_kept(two_releases: Path) -> None:
    done = comfypin("models", "gc", "--models-dir", two_releases, "--keep-releases", "old", "--budget", "1KB")
    assert done.returncode == 0
    assert (two_releases / "vae" / "extra.safetensors").exists()
    done = comfypin(
        "models", "gc", "--models-dir", two_releases, "--keep-releases", "old", "--budget", "100KB", "--even-kept"
    )
    assert len(list(two_releases.glob(".comfypin/blobs/sha256/*/*"))) == 1


def test_gc_only_tells_with_dry_run(two_releases: Path) -> None:
    done = comfypin("models", "gc", "--models-dir", two_releases, "--keep-releases", "new", "--dry-run")
    assert "would be removed" in done.stdout
    assert (two_releases / "vae" / "extra.safetensors").exists()


def test_gc_removes_copies_and_leaves_what_has_changed(tmp_path: Path, two_releases: Path) -> None:
    words = ("models", "pull", "--lock", tmp_path / "old.lock.json", "--models-dir", two_releases, "--link", "copy")
    assert comfypin(*words).returncode == 0
    copy, changed = two_releases / "vae/extra.safetensors", two_releases / "vae/shared.safetensors"
    assert copy.is_file()
    assert not copy.is_symlink()
    changed.chmod(0o644)
    changed.write_bytes(b"mine")
    comfypin("models", "gc", "--models-dir", two_releases, "--budget", "0")
    assert not copy.exists()
    assert changed.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "Say what to keep"),
        (("--keep-releases", "nwe"), "names nwe, but the store only knows"),
        (("--budget", "lots"), "is not a size"),
    ],
)
def test_gc_does_not_guess(two_releases: Path, flags: tuple[str, ...], says: str) -> None:
    done = comfypin("models", "gc", "--models-dir", two_releases, *flags)
    assert done.returncode == 64
    assert says in done.stderr


def test_stage_copies_the_largest_that_fit(tmp_path: Path, two_releases: Path) -> None:
    lock = tmp_path / "old.lock.json"
    words = ("models", "stage", "--lock", lock, "--models-dir", two_releases, "--to", tmp_path / "nvme")
    done = comfypin(*words, "--budget", "100KB")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "nvme/vae/extra.safetensors").read_bytes() == OTHER
    assert not (tmp_path / "nvme/vae/shared.safetensors").exists()


def test_a_pull_whose_staging_fails_says_so(tmp_path: Path, models_dir: Path) -> None:
    lock = write_lock(tmp_path, model(DATA, tmp_path / "source"))
    (tmp_path / "nvme/vae/x.safetensors").mkdir(parents=True)
    words = ("models", "pull", "--lock", lock, "--models-dir", models_dir, "--stage", tmp_path / "nvme")
    done = comfypin(*words)
    assert done.returncode == 50
    assert "a folder has this path" in done.stderr
    assert (models_dir / "vae/x.safetensors").read_bytes() == DATA
    assert "error" in json.loads(comfypin(*words, "--json").stdout)


def test_add_writes_a_pin_with_digest_and_size(tmp_path: Path) -> None:
    lock = write_lock(tmp_path)
    with faulty_server(lambda request: ranged(DATA, request)) as server:
        done = comfypin("models", "add", f"vae/x.safetensors={server.url}/x.safetensors", "--lock", lock)
    assert done.returncode == 0, done.stderr
    (pin,) = json.loads(lock.read_text())["models"]
    assert (pin["sha256"], pin["size_bytes"]) == (hashlib.sha256(DATA).hexdigest(), len(DATA))


def test_tokens_reach_neither_output_nor_log(tmp_path: Path, models_dir: Path) -> None:
    with faulty_server(lambda request: ranged(OTHER, request)) as server:
        lock = write_lock(tmp_path, {**model(DATA, tmp_path / "s"), "sources": [f"{server.url}/x?token=q_secret"]})
        words = ("models", "pull", "--lock", lock, "--models-dir", models_dir, "--verbose")
        done = comfypin(*words, HF_TOKEN="hf_secret", CIVITAI_TOKEN="cv_secret")
        assert all("authorization" not in request.headers for request in server.requests)
    assert done.returncode == 50
    assert "_secret" not in done.stdout + done.stderr
