"""Results claim a lock's release only if the engine was realized from it or compared with it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.lock.codec import release_identity
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.locking.captured_packages import list_installed
from comfypin.settings.environment import Settings
from comfypin.wiring import choose_engine, name_release, release_claim


def commit_folder(folder: Path, **files: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def packages() -> tuple[PackagePin, ...]:
    found = {package.name.lower(): package.version for package in list_installed(Path(sys.executable)).packages}
    return tuple(PackagePin(name=name, version=version) for name, version in found.items() if name != "pip")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "ComfyUI"


@pytest.fixture
def lock(home: Path, packages: tuple[PackagePin, ...]) -> Lock:
    """The lock of a ComfyUI with one node and one model."""
    commit = commit_folder(home, main="", comfyui_version='__version__ = "0.3.64"')
    node = commit_folder(home / "custom_nodes" / "nodes-of-mine", __init__="")
    (home / "models" / "vae").mkdir(parents=True)
    (home / "models" / "vae" / "a.safetensors").write_bytes(b"bytes")
    return Lock(
        version_name="mine",
        comfyui=RepoPin(repo="https://example.com/ComfyUI", ref="v0.3.64", commit=commit),
        custom_nodes=(NodePin(name="nodes-of-mine", repo="https://example.com/nodes", commit=node),),
        python=PythonPins(version=".".join(map(str, sys.version_info[:2])), packages=packages),
        models=(ModelPin(name="a", target_path="$MODELS_DIR/vae/a.safetensors", size_bytes=5),),
    )


def doubt_of(lock: Lock, home: Path, **choices: object) -> str | None:
    variables = {"COMFY_HOME": str(home), "COMFY_PYTHON": sys.executable, "HOME": str(home)}
    settings = Settings({**variables, "COMFYPIN_CACHE_DIR": str(home.parent / "cache")})
    choice = choose_engine(lock.engine, settings, **choices)  # type: ignore[arg-type]
    release = name_release(lock, choice)
    assert (release.digest is None) == (release.doubt is not None)
    assert release.name == ("mine" if release.doubt is None else "unpinned")
    return release.doubt


def test_a_comfyui_that_is_as_the_lock_says_may_claim_it(lock: Lock, home: Path) -> None:
    settings = Settings({"COMFY_HOME": str(home), "COMFY_PYTHON": sys.executable, "HOME": str(home)})
    assert name_release(lock, choose_engine(lock.engine, settings)) == release_identity(lock)


def test_a_doubt_is_logged_unless_the_caller_says_it(lock: Lock, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings({"COMFY_HOME": str(home), "COMFY_PYTHON": sys.executable, "HOME": str(home)})
    other = replace(lock, python=replace(lock.python, version="3.99"))
    choice = choose_engine(other.engine, settings)
    assert name_release(other, choice, is_logged=False).doubt
    assert caplog.records == []
    assert name_release(other, choice).doubt
    assert [record.message for record in caplog.records] == ["unpinned"]


def another_commit(lock: Lock, _home: Path) -> Lock:
    assert lock.comfyui is not None
    return replace(lock, comfyui=replace(lock.comfyui, commit="1" * 40))


def another_package(lock: Lock, _home: Path) -> Lock:
    changed = replace(lock.python.packages[0], version="0.0.1")
    return replace(lock, python=replace(lock.python, packages=(changed, *lock.python.packages[1:])))


def a_package_more(lock: Lock, _home: Path) -> Lock:
    return replace(lock, python=replace(lock.python, packages=lock.python.packages[1:]))


def another_node_commit(lock: Lock, _home: Path) -> Lock:
    return replace(lock, custom_nodes=(replace(lock.custom_nodes[0], commit="2" * 40),))


def a_node_more(lock: Lock, home: Path) -> Lock:
    (home / "custom_nodes" / "another").mkdir()
    return lock


def a_node_less(lock: Lock, _home: Path) -> Lock:
    return replace(lock, custom_nodes=(*lock.custom_nodes, NodePin(name="gone", repo="https://example.com/gone")))


def a_changed_file(lock: Lock, home: Path) -> Lock:
    (home / "main.py").write_text("changed = True\n")
    return lock


def another_python(lock: Lock, _home: Path) -> Lock:
    return replace(lock, python=replace(lock.python, version="3.9"))


def a_model_less(lock: Lock, home: Path) -> Lock:
    (home / "models" / "vae" / "a.safetensors").unlink()
    return lock


def no_checkout(lock: Lock, home: Path) -> Lock:
    (home / ".git").rename(home / "git-away")
    return lock


def no_checkout_of_another_version(lock: Lock, home: Path) -> Lock:
    assert lock.comfyui is not None
    return replace(no_checkout(lock, home), comfyui=replace(lock.comfyui, ref="v0.33.0"))


@pytest.mark.parametrize("change", ["", "changed = True\n"], ids=["the same files", "a changed file"])
def test_an_unpacked_archive_is_compared_with_the_commit_in_the_cache(change: str, lock: Lock, home: Path) -> None:
    assert lock.comfyui is not None
    commit = str(lock.comfyui.commit)
    # Where realize and init keep what they fetched.
    cached = home.parent / "cache" / "git" / f"{commit}.git"
    cached.parent.mkdir(parents=True)
    (home / ".git").rename(cached)
    (home / "main.py").write_text(change)
    doubt = doubt_of(lock, home)
    assert (doubt is None) if not change else ("has other changes than the lock (main.py)" in str(doubt))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_commit, "the lock says 111111111111"),
        (another_package, "the lock says 0.0.1"),
        (a_package_more, "is not in the lock"),
        (another_node_commit, "the node nodes-of-mine is at commit"),
        (a_node_more, "the node another is not in the lock"),
        (a_node_less, "the node gone is not there"),
        (a_changed_file, "has other changes than the lock (main.py)"),
        (another_python, "the lock says 3.9"),
        (a_model_less, "the model a is not at $MODELS_DIR/vae/a.safetensors"),
        (no_checkout, "has no .git, and commit"),
        (no_checkout_of_another_version, "ComfyUI is 0.3.64, the lock says 0.33.0"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_comfyui_that_differs_may_not(
    change: Callable[[Lock, Path], Lock], said: str, lock: Lock, home: Path
) -> None:
    doubt = doubt_of(change(lock, home), home)
    assert doubt is not None
    assert said in doubt


def test_an_engine_of_another_kind_may_not(lock: Lock, home: Path) -> None:
    assert "the built-in engine runs" in str(doubt_of(lock, home, kind="embedded"))
    embedded = replace(lock, engine=EngineSpec(kind="embedded"))
    assert doubt_of(embedded, home) is None
    assert "the lock mine is for the built-in engine" in str(doubt_of(embedded, home, kind="comfyui"))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, home: Path) -> dict[str, object]:
    """What the ComfyUI at the address tells of its system."""
    told: dict[str, object] = {"comfyui_version": "0.3.64", "argv": [str(home / "main.py"), "--cpu"]}

    async def ask_system(_url: str) -> dict[str, object]:
        return told

    monkeypatch.setattr(release_claim, "_ask_system", ask_system)
    return told


ADDRESS = "http://127.0.0.1:8188"


def test_an_address_alone_tells_too_little(lock: Lock, home: Path, answers: dict[str, object]) -> None:
    assert "name its folder with --comfy-home" in str(doubt_of(lock, home, engine_url=ADDRESS))
    answers["comfyui_version"] = "0.33.0"
    assert "ComfyUI is 0.33.0, the lock says 0.3.64" in str(doubt_of(lock, home, engine_url=ADDRESS))


def test_with_its_folder_it_is_compared(lock: Lock, home: Path, answers: dict[str, object]) -> None:
    assert doubt_of(lock, home, engine_url=ADDRESS, url_home=home) is None
    assert "another is not in" in str(doubt_of(a_node_more(lock, home), home, engine_url=ADDRESS, url_home=home))


@pytest.mark.parametrize("script", ["main.py", "/elsewhere/main.py", None])
def test_a_process_of_another_folder_is_not_believed(
    script: str | None, lock: Lock, home: Path, answers: dict[str, object]
) -> None:
    answers["argv"] = None if script is None else [script]
    assert "does not say that it runs from" in str(doubt_of(lock, home, engine_url=ADDRESS, url_home=home))


def test_another_machine_is_not_this_ones_folder(lock: Lock, home: Path, answers: dict[str, object]) -> None:
    doubt = doubt_of(lock, home, engine_url="http://comfy.example.com:8188", url_home=home)
    assert "does not say that it runs from" in str(doubt)


def test_an_address_without_an_answer_is_unpinned(lock: Lock, home: Path) -> None:
    doubt = str(doubt_of(lock, home, engine_url="http://user:secret@127.0.0.1:9"))
    assert "could not be compared" in doubt
    assert "secret" not in doubt
