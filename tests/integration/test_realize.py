"""Lock to env with real git, real uv and real wheels; no network but the registry where a test says so."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.digest import Digest
from comfypin.env.errors import (
    HomeOccupied,
    InstallScriptChanged,
    InstallScriptFailed,
    PackageHashMismatch,
    PackagesUnavailable,
    ProbeFailed,
    PythonMissing,
    RequirementsNotLocked,
    WheelUnfit,
)
from comfypin.env.file_manifest import hash_files
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, venv_python
from comfypin.env.realize import RealizedEnv, RealizeOptions, plan_realize, realize_env
from comfypin.env.status import check_env
from comfypin.errors import EnvError
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import PackagePin, PythonPins, RepoPin
from comfypin.tools.errors import CommitMissing, CommitNotHere, RepoUnreachable, TreeRefused
from tests.support.releases import PYTHON, Repo, SmallRelease, comfyui_files, make_wheel, small_release


def options(release: SmallRelease, name: str = "home", **changes: object) -> RealizeOptions:
    home = release.root / name
    given = RealizeOptions(
        home=Home(root=home), models_dir=home / "models", locations=SourceLocations(cache=release.root / "cache")
    )
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.fixture
def release(tmp_path: Path) -> SmallRelease:
    return small_release(tmp_path)


@pytest.fixture
def realized(release: SmallRelease) -> RealizedEnv:
    return realize_env(release.lock, options(release))


def test_the_env_has_comfyui_nodes_and_packages_as_pinned(release: SmallRelease, realized: RealizedEnv) -> None:
    build = realized.folder
    assert (build / "ComfyUI/main.py").read_text() == comfyui_files()["main.py"]
    assert (build / "ComfyUI/custom_nodes/node-one/lib/helper.py").is_file()
    asked = subprocess.run(
        [venv_python(build), "-c", "import alpha, beta; print(alpha.VALUE)"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == "1"
    assert realized.receipt.packages == {"alpha": "1.0", "beta": "2.1", "gamma": "0.3"}
    assert realized.receipt.nodes[0].commit == release.lock.custom_nodes[0].commit


def test_the_home_leads_to_it_by_relative_links(release: SmallRelease, realized: RealizedEnv) -> None:
    home = release.root / "home"
    assert (home / "ComfyUI/main.py").is_file()
    assert (home / "venv/bin/python").exists()
    assert not any((home / name).readlink().is_absolute() for name in ("current", "ComfyUI", "venv"))


def test_a_second_run_changes_nothing_and_takes_less_than_a_second(
    release: SmallRelease, realized: RealizedEnv
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in (release.root / "home").rglob("*")}
    again = realize_env(release.lock, options(release))
    assert again.action == "keep"
    assert again.seconds < 1
    assert {path: path.lstat().st_mtime_ns for path in (release.root / "home").rglob("*")} == before


def test_the_same_lock_gives_the_same_bytes_elsewhere(release: SmallRelease, realized: RealizedEnv) -> None:
    other = realize_env(release.lock, options(release, "elsewhere"))
    assert other.receipt == realized.receipt
    assert hash_files(other.folder) == hash_files(realized.folder)


def test_a_home_that_was_moved_still_works(release: SmallRelease, realized: RealizedEnv) -> None:
    moved = release.root / "moved"
    (release.root / "home").rename(moved)
    assert realize_env(release.lock, options(release, "moved")).action == "keep"
    subprocess.run([moved / "venv/bin/python", "-c", "import beta"], check=True)


def test_a_python_that_went_away_is_wired_anew(release: SmallRelease, realized: RealizedEnv) -> None:
    python = venv_python(realized.folder)
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert realize_env(release.lock, options(release)).action == "rewire"
    subprocess.run([python, "-c", "import beta"], check=True)


@pytest.mark.parametrize("half", ["ComfyUI", "venv", "receipt.json"])
def test_an_env_that_lost_a_part_is_not_taken_for_whole(
    half: str, release: SmallRelease, realized: RealizedEnv
) -> None:
    path = realized.folder / half
    path.unlink() if path.is_file() else shutil.rmtree(path)
    again = realize_env(release.lock, options(release))
    assert again.action == "build"
    assert again.receipt == realized.receipt
    assert check_env(Home(root=release.root / "home"), None).drifts == ()


def test_comfyui_is_told_every_model_folder(release: SmallRelease) -> None:
    models = release.root / "home/models"
    (models / "ultralytics").mkdir(parents=True)
    realized = realize_env(release.lock, options(release))
    text = (realized.folder / "ComfyUI/extra_model_paths.yaml").read_text()
    assert '"text_encoders": "text_encoders\\nclip"' in text
    assert '"ultralytics": "ultralytics"' in text
    assert str(release.root) not in text, "a volume may be mounted elsewhere"


def test_the_next_realize_removes_what_a_killed_one_left_of_the_model_paths(
    release: SmallRelease, realized: RealizedEnv
) -> None:
    leftover = realized.folder / "ComfyUI/.extra_model_paths.yaml.0123456789ab.tmp"
    leftover.write_bytes(b"half a fi")
    assert realize_env(release.lock, options(release)).action == "keep"
    assert not leftover.exists()


def test_nothing_of_git_is_left_and_no_temporary_build(release: SmallRelease, realized: RealizedEnv) -> None:
    assert not list((release.root / "home").rglob(".git"))
    assert [path.name for path in (release.root / "home/builds").iterdir()] == [realized.receipt.key]


def test_a_submodule_comes_with_its_node(release: SmallRelease) -> None:
    inner = Repo(release.root / "inner")
    inner.commit({"inner.py": "INNER = 1\n"})
    node = release.nodes["node-one"]
    node.git("submodule", "--quiet", "add", "../inner", "vendor/inner")
    node.git("config", "--file", ".gitmodules", "submodule.vendor/inner.url", "../inner")
    commit = node.commit({}, "with a submodule")
    realized = realize_env(with_node(release, commit=commit).lock, options(release))
    assert (realized.folder / "ComfyUI/custom_nodes/node-one/vendor/inner/inner.py").read_text() == "INNER = 1\n"


def test_what_a_node_writes_when_it_is_imported_is_taken_back(release: SmallRelease) -> None:
    text = (
        "import pathlib\nhere = pathlib.Path(__file__).parent\n(here / 'made.json').write_text(str(here))\n"
        "(here / 'README.md').write_text('changed')\nNODE_CLASS_MAPPINGS = {}\n"
    )
    changed = with_node(release, commit=release.nodes["node-one"].commit({"__init__.py": text}))
    realized = realize_env(changed.lock, options(release))
    node = realized.folder / "ComfyUI/custom_nodes/node-one"
    assert not (node / "made.json").exists()
    assert (node / "README.md").read_text() == "# node-one\n"
    assert check_env(Home(root=release.root / "home"), None).drifts == ()


def with_node(release: SmallRelease, **changes: object) -> SmallRelease:
    first, *others = release.lock.custom_nodes
    return release.changed(custom_nodes=(replace(first, **changes), *others))  # type: ignore[arg-type]


# -- install scripts


def with_script(release: SmallRelease, script: str, **changes: object) -> SmallRelease:
    commit = release.nodes["node-one"].commit({"install.py": script})
    return with_node(release, commit=commit, **{"install_script": "run", **changes})


def test_an_install_script_runs_where_the_lock_says_so(release: SmallRelease) -> None:
    script = "import pathlib\npathlib.Path('installed.txt').write_text('yes')\n"
    realized = realize_env(with_script(release, script).lock, options(release))
    assert (realized.folder / "ComfyUI/custom_nodes/node-one/installed.txt").read_text() == "yes"


def test_an_install_script_is_skipped_where_the_lock_says_so(release: SmallRelease) -> None:
    skipped = with_script(release, "raise SystemExit(3)\n", install_script="skip")
    assert realize_env(skipped.lock, options(release)).action == "build"


@pytest.mark.parametrize("pip", ["{sys.executable} -s -m pip", "pip", "pip3"])
def test_an_install_script_may_call_pip_for_what_is_there_already(pip: str, release: SmallRelease) -> None:
    flags = "--user --no-warn-script-location --disable-pip-version-check --root-user-action=ignore"
    script = f"import subprocess, sys\nsubprocess.check_call(f'{pip} install {flags} alpha', shell=True)\n"
    assert realize_env(with_script(release, script).lock, options(release)).action == "build"


def test_an_install_script_must_not_change_files_of_others(release: SmallRelease) -> None:
    script = "open('../../main.py', 'a').write('# mine')\nopen('__init__.py', 'a').write('# made')\n"
    with pytest.raises(InstallScriptFailed, match=r"outside its own folder: ComfyUI/main\.py\."):
        realize_env(with_script(release, script).lock, options(release))


def test_an_install_script_cannot_reach_the_pip_of_the_system(release: SmallRelease) -> None:
    wheel = make_wheel(release.root / "wheels", "delta", "9.0", {"delta.py": ""})
    script = f"import subprocess\nsubprocess.check_call(['pip', 'install', {wheel.url!r}])\n"
    with pytest.raises(InstallScriptFailed, match="delta"):
        realize_env(with_script(release, script).lock, options(release))


def test_an_install_script_that_fails_is_one_error(release: SmallRelease) -> None:
    failing = with_script(release, "import sys\nsys.exit('no compiler here')\n")
    with pytest.raises(InstallScriptFailed, match=r"node-one.*no compiler here"):
        realize_env(failing.lock, options(release))
    assert_nothing_half_done(release)


def test_an_install_script_must_not_move_packages(release: SmallRelease) -> None:
    wheel = make_wheel(release.root / "wheels", "delta", "9.0", {"delta.py": ""})
    script = f"import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', {wheel.url!r}])\n"
    with pytest.raises(InstallScriptFailed, match="delta"):
        realize_env(with_script(release, script).lock, options(release))


def test_an_install_script_that_is_not_the_locked_one_does_not_run(release: SmallRelease) -> None:
    marker = release.root / "ran"
    script = f"open({str(marker)!r}, 'w').close()\n"
    changed = with_script(release, script, install_script_sha256=Digest.of(b"another script"))
    with pytest.raises(InstallScriptChanged, match="node-one"):
        realize_env(changed.lock, options(release))
    assert not marker.exists()


# -- bad input: one clear error each, nothing half done


def assert_nothing_half_done(release: SmallRelease) -> None:
    home = release.root / "home"
    assert not (home / "current").is_symlink()
    assert not list((home / "builds").iterdir()) if (home / "builds").exists() else True


def test_an_unreachable_host(release: SmallRelease) -> None:
    lock = replace(release.lock, comfyui=RepoPin(repo="https://127.0.0.1:9/ComfyUI.git", commit="a" * 40))
    with pytest.raises(RepoUnreachable, match=r"127\.0\.0\.1:9"):
        realize_env(lock, options(release))
    assert_nothing_half_done(release)


def test_a_repository_out_of_reach_ends_it_before_packages_are_fetched(release: SmallRelease) -> None:
    (release.root / "wheels/alpha-1.0-py3-none-any.whl").unlink()
    lock = replace(release.lock, comfyui=RepoPin(repo="https://127.0.0.1:9/ComfyUI.git", commit="a" * 40))
    with pytest.raises(RepoUnreachable):
        realize_env(lock, options(release))


def test_a_missing_commit(release: SmallRelease) -> None:
    with pytest.raises(CommitMissing, match=r"a{40}"):
        realize_env(with_node(release, commit="a" * 40).lock, options(release))
    assert_nothing_half_done(release)


def test_a_branch_where_a_commit_belongs(release: SmallRelease) -> None:
    with pytest.raises(LockIncomplete, match="main"):
        realize_env(with_node(release, commit="main").lock, options(release))


def test_a_hash_that_does_not_match(release: SmallRelease) -> None:
    first, *others = release.lock.python.packages
    packages = (replace(first, sha256=(Digest.of(b"other bytes"),)), *others)
    lock = replace(release.lock, python=PythonPins(version=PYTHON, packages=packages))
    with pytest.raises(PackageHashMismatch, match="alpha"):
        realize_env(lock, options(release))
    assert_nothing_half_done(release)


def test_a_wheel_for_another_platform(release: SmallRelease) -> None:
    url = "https://example.org/torch-2.8.0-cp311-cp311-win_amd64.whl"
    torch = PackagePin(name="torch", version="2.8.0", url=url, sha256=(Digest.of(b""),))
    lock = replace(release.lock, python=PythonPins(version=PYTHON, packages=(*release.lock.python.packages, torch)))
    with pytest.raises(WheelUnfit, match=r"torch 2\.8\.0 has torch-2\.8\.0-cp311-cp311-win_amd64\.whl"):
        realize_env(lock, options(release))


def test_a_package_that_is_gone(release: SmallRelease) -> None:
    (release.root / "wheels/alpha-1.0-py3-none-any.whl").unlink()
    with pytest.raises(PackagesUnavailable, match="alpha"):
        realize_env(release.lock, options(release))
    assert_nothing_half_done(release)


def test_a_python_that_is_not_here(release: SmallRelease) -> None:
    lock = replace(release.lock, python=replace(release.lock.python, version="3.7"))
    with pytest.raises(PythonMissing, match=r"3\.7"):
        realize_env(lock, options(release))


def test_a_node_that_cannot_be_imported(release: SmallRelease) -> None:
    broken = with_node(release, commit=release.nodes["node-one"].commit({"__init__.py": "import not_locked\n"}))
    with pytest.raises(ProbeFailed, match="node node-one: No module named 'not_locked'"):
        realize_env(broken.lock, options(release))
    assert_nothing_half_done(release)


def test_a_node_that_cannot_be_imported_because_its_install_script_was_skipped(release: SmallRelease) -> None:
    script = "open('brought.py', 'w').close()\n"
    commit = release.nodes["node-one"].commit({"__init__.py": "from . import brought\n", "install.py": script})
    broken = with_node(release, commit=commit, install_script_sha256=Digest.of(script.encode()))
    with pytest.raises(ProbeFailed, match=r"install\.py of node-one was skipped and may bring what is missing"):
        realize_env(broken.lock, options(release))


def test_a_node_that_crashes_the_interpreter(release: SmallRelease) -> None:
    crash = "import os\nos._exit(139)\n"
    broken = with_node(release, commit=release.nodes["node-one"].commit({"__init__.py": crash}))
    with pytest.raises(ProbeFailed, match=r"node node-one: .* code 139"):
        realize_env(broken.lock, options(release))


def test_a_requirement_of_comfyui_that_the_lock_lacks(release: SmallRelease) -> None:
    packages = tuple(pin for pin in release.lock.python.packages if pin.name != "beta")
    lock = replace(release.lock, python=PythonPins(version=PYTHON, packages=packages))
    with pytest.raises(RequirementsNotLocked, match="does not have: beta"):
        realize_env(lock, options(release))


def test_a_pointer_of_git_lfs(release: SmallRelease) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    commit = release.nodes["node-one"].commit({"weights.bin": pointer})
    with pytest.raises(TreeRefused, match=r"weights\.bin.*LFS"):
        realize_env(with_node(release, commit=commit).lock, options(release))


def test_a_link_that_leads_out_of_its_repository(release: SmallRelease) -> None:
    node = release.nodes["node-one"]
    (node.folder / "out").symlink_to("../../../../etc/passwd")
    with pytest.raises(TreeRefused, match="leads out"):
        realize_env(with_node(release, commit=node.commit({})).lock, options(release))


def test_a_home_that_holds_a_comfyui_of_someone_else(release: SmallRelease) -> None:
    foreign = release.root / "home/ComfyUI"
    foreign.mkdir(parents=True)
    (foreign / "main.py").write_text("mine")
    with pytest.raises(HomeOccupied, match="was not made by comfypin"):
        realize_env(release.lock, options(release))
    assert (foreign / "main.py").read_text() == "mine"


def test_offline_without_a_cache(release: SmallRelease) -> None:
    places = SourceLocations(cache=release.root / "cache", offline=True)
    with pytest.raises(CommitNotHere, match="--vendor"):
        realize_env(release.lock, options(release, locations=places))


def test_offline_with_a_cache_and_without_the_repositories(release: SmallRelease, realized: RealizedEnv) -> None:
    for repo in (release.comfyui, *release.nodes.values()):
        shutil.rmtree(repo.folder)
    places = SourceLocations(cache=release.root / "cache", offline=True)
    assert realize_env(release.lock, options(release, "elsewhere", locations=places)).receipt == realized.receipt


# -- the plan and the command


def test_the_plan_names_every_step_and_does_nothing(release: SmallRelease) -> None:
    plan = plan_realize(release.lock, options(release), where="here")
    assert plan.action == "build"
    assert [step.name for step in plan.steps] == ["source"] * 3 + ["venv", "packages", "probe", "commit"]
    assert not (release.root / "home").exists()


def test_the_command_realizes_and_says_so_as_json(
    release: SmallRelease, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the machine's, which may have these packages from other tests.
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(release.root / "cache"))
    lock, home = str(release.write_lock()), str(release.root / "home")
    assert main(["realize", lock, "--home", home, "--dry-run", "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["sizes"]
    assert sizes["packages_bytes"] > 0
    assert sizes["kept_packages"] == 0
    assert main(["realize", lock, "--home", home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "build"
    assert main(["env", "status", "--home", home]) == 0
    assert main(["realize", lock, "--home", home, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["action"] == "keep"


def test_the_command_ends_with_the_code_of_its_family(release: SmallRelease) -> None:
    lock = with_node(release, commit="b" * 40).write_lock()
    assert main(["realize", str(lock), "--home", str(release.root / "home")]) == EnvError.exit_code
