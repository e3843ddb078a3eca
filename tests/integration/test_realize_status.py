"""A release of 30 and more packages from the real registry and three nodes, broken in ten ways: each is named."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.env.drift import Drift
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages, venv_python
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.env.status import check_env
from comfypin.lock.model import NodePin, PythonPins
from tests.support.releases import (
    PYTHON,
    Repo,
    SmallRelease,
    comfyui_files,
    make_wheel,
    resolve_from_pypi,
    small_release,
)

# Small wheels, for the speed of the test: what matters is that there are many.
REQUIREMENTS = (
    *("aiohttp", "requests", "jinja2", "pydantic-settings", "alembic", "tqdm", "pyyaml", "packaging", "click"),
    *("rich", "httpx", "filelock", "fsspec", "platformdirs", "tomli-w", "sortedcontainers"),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    """The release, realized once; each test breaks a copy of its home."""
    root = tmp_path_factory.mktemp("release")
    small = small_release(root)
    comfyui = Repo(root / "ComfyUI").commit(comfyui_files("aiohttp\npyyaml>=6\ntqdm\n"))
    third = Repo(root / "third")
    files = {"__init__.py": "import yaml, aiohttp\nNODE_CLASS_MAPPINGS = {}\n", "data/table.csv": "1,2\n"}
    pins = resolve_from_pypi(REQUIREMENTS)
    assert len(pins) >= 30
    lock = replace(
        small.lock,
        comfyui=replace(small.lock.comfyui, commit=comfyui),
        custom_nodes=(*small.lock.custom_nodes, NodePin(name="third", repo=third.url, commit=third.commit(files))),
        python=PythonPins(version=PYTHON, packages=(*pins, small.lock.python.packages[0])),
    )
    release = replace(small, lock=lock, nodes={**small.nodes, "third": third})
    realize_env(lock, options(root / "home", root))
    return release


def options(home: Path, root: Path) -> RealizeOptions:
    return RealizeOptions(
        home=Home(root=home), models_dir=home / "models", locations=SourceLocations(cache=root / "cache")
    )


@pytest.fixture
def home(template: SmallRelease, tmp_path: Path) -> Home:
    shutil.copytree(template.root / "home", tmp_path / "home", symlinks=True)
    return Home(root=tmp_path / "home")


def nodes(home: Home) -> Path:
    return home.root / "ComfyUI/custom_nodes"


def site(home: Home) -> Path:
    return site_packages(home.root / "current")


def clone_at_another_commit(home: Home, template: SmallRelease) -> None:
    shutil.rmtree(nodes(home) / "node-one")
    repo = template.nodes["node-one"]
    commit = repo.commit({"README.md": "newer"})
    subprocess.run(["git", "clone", "--quiet", repo.url, nodes(home) / "node-one"], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=nodes(home) / "node-one", check=True)


def upgrade_by_hand(home: Home, template: SmallRelease) -> None:
    make_wheel(template.root / "wheels", "alpha", "1.1", {"alpha/__init__.py": "VALUE = 2\n"})
    wheel = template.root / "wheels/alpha-1.1-py3-none-any.whl"
    install(home, str(wheel))


def install(home: Home, what: str) -> None:
    from comfypin.tools.uv import run_uv

    done = run_uv(["pip", "install", "--quiet", "--python", venv_python(home.root / "current"), what])
    assert done.exit_code == 0, done.stderr


def edit(path: Path, line: str = "# edited") -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


def put_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def edit_through_a_hard_link(home: Home, template: SmallRelease) -> None:
    """What uv's default does: the env shares its files with the cache, and an edit elsewhere arrives here."""
    path, elsewhere = site(home) / "tqdm/std.py", template.root / "elsewhere.py"
    elsewhere.unlink(missing_ok=True)
    os.link(path, elsewhere)
    edit(elsewhere)


def another_name_of(python: Path) -> str:
    """The same program, from another place."""
    other = python.parents[4] / "elsewhere" / "python3"
    other.parent.mkdir(exist_ok=True)
    other.unlink(missing_ok=True)
    other.symlink_to(python.resolve())
    return str(other)


def add_a_package(home: Home, template: SmallRelease) -> None:
    make_wheel(template.root / "wheels", "omega", "1.0", {"omega.py": ""})
    install(home, str(template.root / "wheels/omega-1.0-py3-none-any.whl"))


Breakage = Callable[[Home, SmallRelease], object]
BREAKAGES: dict[str, tuple[Breakage, str, str]] = {
    "a moved commit": (clone_at_another_commit, "commit-moved", "node node-one"),
    "an edited file of ComfyUI": (lambda home, _: edit(home.root / "ComfyUI/nodes.py"), "file-edited", "ComfyUI"),
    "an edited file of a node": (
        lambda home, _: edit(nodes(home) / "node_two/lib/helper.py"),
        "file-edited",
        "node node_two",
    ),
    "a deleted file": (lambda home, _: (nodes(home) / "third/data/table.csv").unlink(), "file-missing", "node third"),
    "a deleted node": (lambda home, _: shutil.rmtree(nodes(home) / "third"), "source-missing", "node third"),
    "a node that nobody asked for": (
        lambda home, _: shutil.copytree(nodes(home) / "third", nodes(home) / "fourth"),
        "node-added",
        "node fourth",
    ),
    "a package of another version": (upgrade_by_hand, "package-changed", "alpha"),
    "a package edited by hand": (lambda home, _: edit(site(home) / "yaml/loader.py"), "package-edited", "pyyaml"),
    "a package edited through a hard link": (edit_through_a_hard_link, "package-edited", "tqdm"),
    "a package that was removed": (
        lambda home, _: [shutil.rmtree(path) for path in site(home).glob("jinja2*")],
        "package-missing",
        "jinja2",
    ),
    "a package that was added": (add_a_package, "package-added", "omega"),
    "code slipped into site-packages": (
        lambda home, _: (site(home) / "sneaky.pth").write_text("import os\n"),
        "site-added",
        "site-packages",
    ),
    "a Python that went away": (
        lambda home, _: venv_python(home.root / "current").unlink(),
        "interpreter-missing",
        "python",
    ),
    "a program in Python's place": (
        lambda home, _: put_link(venv_python(home.root / "current"), "/bin/true"),
        "interpreter-changed",
        "python",
    ),
    "another Python": (
        lambda home, _: put_link(
            venv_python(home.root / "current"), another_name_of(venv_python(home.root / "current"))
        ),
        "interpreter-changed",
        "python",
    ),
    "the system's packages let in": (
        lambda home, _: edit(home.root / "current/venv/pyvenv.cfg", "include-system-site-packages = true"),
        "venv-changed",
        "venv",
    ),
    "a program beside the packages' own": (
        lambda home, _: (home.root / "current/venv/bin/ffmpeg").write_text("#!/bin/sh\n"),
        "venv-added",
        "venv",
    ),
    "a pipe in a file's place": (
        lambda home, _: [path.unlink() or os.mkfifo(path) for path in (nodes(home) / "third/__init__.py",)],
        "file-edited",
        "node third",
    ),
    "a receipt that went away": (
        lambda home, _: (home.root / "current/receipt.json").unlink(),
        "env-incomplete",
        "env",
    ),
}


def test_an_env_that_was_just_realized_is_what_its_lock_says(home: Home, template: SmallRelease) -> None:
    status = check_env(home, template.lock)
    assert status.drifts == ()
    assert status.receipt is not None
    assert len(status.receipt.packages) >= 31


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_was_broken_is_named_and_nothing_else(name: str, home: Home, template: SmallRelease) -> None:
    break_it, kind, subject = BREAKAGES[name]
    break_it(home, template)
    found = check_env(home, template.lock).drifts
    assert [(drift.kind, drift.subject) for drift in found] == [(kind, subject)]


def test_all_ways_at_once_are_all_named(home: Home, template: SmallRelease) -> None:
    # Their node is deleted whole; nothing is known without a receipt; Python goes away last.
    left_out = {"a deleted file", "a pipe in a file's place", "a receipt that went away", "a Python that went away"}
    left_out |= {"a program in Python's place", "another Python"}
    wanted = set()
    for name, (break_it, kind, subject) in reversed(BREAKAGES.items()):
        if name not in left_out:
            break_it(home, template)
            wanted.add((kind, subject))
    venv_python(home.root / "current").unlink()
    wanted.add(("interpreter-missing", "python"))
    assert wanted <= {(drift.kind, drift.subject) for drift in check_env(home, template.lock).drifts}


def test_a_lock_with_other_pins_is_named_pin_by_pin(home: Home, template: SmallRelease) -> None:
    first, *others = template.lock.custom_nodes
    other = replace(template.lock, custom_nodes=(replace(first, commit="c" * 40), *others))
    found: list[Drift] = list(check_env(home, other).drifts)
    assert [(drift.kind, drift.subject) for drift in found] == [("lock-differs", "node node-one")]


def test_what_an_engine_writes_is_no_drift(home: Home, template: SmallRelease) -> None:
    for path in ("ComfyUI/user/settings.json", "ComfyUI/output/a.png", "ComfyUI/custom_nodes/third/cache.json"):
        (home.root / path).parent.mkdir(parents=True, exist_ok=True)
        (home.root / path).write_text("{}")
    subprocess.run([venv_python(home.root / "current"), "-c", "import aiohttp"], check=True)
    assert check_env(home, template.lock).drifts == ()


def test_realizing_again_brings_python_and_its_settings_back(home: Home, template: SmallRelease) -> None:
    for name in ("a program in Python's place", "another Python", "the system's packages let in"):
        BREAKAGES[name][0](home, template)
        assert realize_env(template.lock, options(home.root, template.root)).action == "rewire"
        assert check_env(home, template.lock).drifts == ()


def test_a_rebuild_repairs_everything(home: Home, template: SmallRelease) -> None:
    edit(home.root / "ComfyUI/nodes.py")
    rebuilt = realize_env(template.lock, replace(options(home.root, template.root), rebuild=True))
    assert rebuilt.action == "build"
    assert check_env(home, template.lock).drifts == ()
