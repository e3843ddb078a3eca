"""Locks made from real git repositories and real packages: created, upgraded, compared, exported, vendored."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.errors import UsageError
from comfypin.lock.check import check_lock
from comfypin.lock.codec import parse_lock, render_lock
from comfypin.lock.diff import change_lines, diff_locks
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.export import export_lock
from comfypin.lock.model import Lock
from comfypin.lock.model_spec import ModelFacts, parse_model_spec
from comfypin.locking.create import LockRequest, MadeLock, create_lock
from comfypin.locking.errors import NothingToUpgrade
from comfypin.locking.migrate import complete_lock, migrate_lock
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import parse_repo_spec
from comfypin.locking.sources import Upstreams
from comfypin.locking.upgrade import UpgradeRequest, resolve_request_of, upgrade_lock
from comfypin.locking.vendor import vendor_lock
from comfypin.tools.git import CommitSource
from comfypin.tools.uv import run_uv
from comfypin.tools.vendor_folder import VendorFolder
from tests.support.repositories import commit, git

pytestmark = pytest.mark.network

SCRIPT = "print('installing')\n"


def silent(_: str) -> None:
    """Nobody listens."""


def describe(source: str) -> ModelFacts:
    """A source that says the digest of its own address."""
    name = source.rpartition("/")[2].partition("?")[0]
    return ModelFacts(source=source, filename=name, sha256=Digest.of(name.encode()), size_bytes=len(name))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the repositories are; tests only ever add commits and tags to them."""
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def places(root: Path) -> Upstreams:
    cache = root / "cache"
    return Upstreams(
        commits=CommitSource(cache=cache / "git"),
        registry=NodeRegistry(url="http://127.0.0.1:9"),
        archives=cache / "archives",
    )


@pytest.fixture(scope="module")
def wishes(root: Path) -> LockRequest:
    commit(root / "ComfyUI", {"main.py": "", "requirements.txt": "idna<3.7\n--pre\n"}, tag="v1")
    commit(root / "alpha", {"requirements.txt": "iniconfig\n", "install.py": SCRIPT}, tag="v1")
    commit(root / "beta", {"pyproject.toml": '[project]\nname = "b"\ndependencies = ["idna>=3"]\n'}, tag="v1")
    return LockRequest(
        name="rel",
        comfyui=parse_repo_spec(f"{(root / 'ComfyUI').as_uri()}@v1"),
        nodes=tuple(parse_repo_spec(f"{(root / name).as_uri()}@v1") for name in ("beta", "alpha")),
        packages=("packaging",),
        models=(parse_model_spec("vae/=https://x.org/v.safetensors"),),
        system_packages=("ffmpeg",),
    )


def make(wishes: LockRequest, places: Upstreams) -> Lock:
    return create_lock(wishes, upstreams=places, describe_model=describe, report=silent).lock


@pytest.fixture(scope="module")
def made(wishes: LockRequest, places: Upstreams) -> MadeLock:
    """One resolve for all tests that only look."""
    return create_lock(wishes, upstreams=places, describe_model=describe, report=silent)


@pytest.fixture
def lock(made: MadeLock) -> Lock:
    return made.lock


def versions(lock: Lock) -> Mapping[str, str]:
    return {pin.name: pin.version for pin in lock.python.packages}


def test_every_ref_becomes_a_commit_and_every_package_has_its_digest(lock: Lock, root: Path) -> None:
    assert lock.comfyui is not None
    assert lock.comfyui.commit == git(root / "ComfyUI", "rev-parse", "v1^{commit}")
    assert lock.comfyui.ref == "v1"
    assert {finding.rule for finding in check_lock(lock)} == {"machine-path"}
    assert set(versions(lock)) == {"idna", "iniconfig", "packaging"}
    assert versions(lock)["idna"] == "3.6"


def test_install_scripts_are_hashed_and_skipped_unless_they_are_named(
    lock: Lock, wishes: LockRequest, places: Upstreams
) -> None:
    skipped = {node.folder: node for node in lock.custom_nodes}
    assert (skipped["alpha"].install_script, skipped["beta"].install_script_sha256) == ("skip", None)
    assert skipped["alpha"].install_script_sha256 == Digest.of(SCRIPT.encode())
    run = make(replace(wishes, install_scripts=frozenset({"alpha"})), places)
    assert {node.folder: node.install_script for node in run.custom_nodes} == {"alpha": "run", "beta": "skip"}


def test_the_same_inputs_give_the_same_bytes(lock: Lock, wishes: LockRequest, places: Upstreams) -> None:
    turned = replace(wishes, nodes=tuple(reversed(wishes.nodes)))
    assert render_lock(make(turned, places)) == render_lock(lock)


def test_what_is_made_can_be_read(lock: Lock) -> None:
    assert render_lock(parse_lock(render_lock(lock), where="made").lock) == render_lock(lock)


def test_options_of_a_requirement_file_that_are_not_obeyed_are_noted(made: MadeLock) -> None:
    assert any("--pre" in note for note in made.notes)
    assert any("install.py of alpha" in note for note in made.notes)


def test_a_flag_that_changes_nothing_is_noted(wishes: LockRequest, places: Upstreams) -> None:
    question = replace(wishes.question, torch="cu128")
    asked = replace(wishes, dropped=frozenset({"Iniconfig"}), question=question)
    made = create_lock(asked, upstreams=places, describe_model=describe, report=silent)
    assert "iniconfig" not in versions(made.lock)
    assert "nobody asks for torch, so --torch cu128 changes nothing" in made.notes


def test_an_upgrade_moves_only_the_node_that_is_named(lock: Lock, places: Upstreams, root: Path) -> None:
    commit(root / "beta", {"new.py": ""}, tag="v2")
    commit(root / "alpha", {"new.py": ""}, tag="v2")
    moves = UpgradeRequest(name="rel2", nodes={"beta": "v2"})
    newer = upgrade_lock(lock, moves, upstreams=places, describe_model=describe, report=silent).lock
    assert [(change.section, change.name) for change in diff_locks(lock, newer)] == [("node", "beta")]


def test_an_upgrade_moves_only_the_package_that_is_named(wishes: LockRequest, places: Upstreams) -> None:
    old = make(replace(wishes, packages=("packaging<24", "idna==3.2")), places)
    old = replace(old, python=replace(old.python, requirements=("packaging", "idna")))
    moves = UpgradeRequest(name="rel2", packages=("idna",))
    newer = upgrade_lock(old, moves, upstreams=places, describe_model=describe, report=silent).lock
    assert versions(newer)["idna"] == "3.6"
    assert versions(newer)["packaging"] == versions(old)["packaging"]


def test_an_upgrade_keeps_packages_that_nobody_asks_for(wishes: LockRequest, places: Upstreams, root: Path) -> None:
    old = make(replace(wishes, packages=("packaging", "six==1.15.0")), places)
    old = replace(old, python=replace(old.python, requirements=("packaging",)))
    commit(root / "alpha", {"requirements.txt": ""}, tag="v3")
    newer = upgrade_lock(
        old, UpgradeRequest(name="b", nodes={"alpha": "v3"}), upstreams=places, describe_model=describe, report=silent
    )
    assert versions(newer.lock)["six"] == "1.15.0"
    assert set(newer.lock.python.requirements) == {"packaging", "six"}
    assert "iniconfig" not in versions(newer.lock), "nobody asks for it any more"


def test_an_upgrade_asks_as_the_lock_was_asked_for(wishes: LockRequest, places: Upstreams, root: Path) -> None:
    question = replace(wishes.question, overrides=("idna==3.5",), indexes=("https://user:hunter2@pypi.org/simple",))
    old = make(replace(wishes, dropped=frozenset({"iniconfig"}), question=question), places)
    old = parse_lock(render_lock(old), where="made").lock
    commit(root / "beta", {"more.py": ""}, tag="v3")
    newer = upgrade_lock(
        old, UpgradeRequest(name="b", nodes={"beta": "v3"}), upstreams=places, describe_model=describe, report=silent
    )
    assert [(change.section, change.name) for change in diff_locks(old, newer.lock)] == [("node", "beta")]
    assert versions(newer.lock)["idna"] == "3.5"
    assert newer.lock.python.dropped == ("iniconfig",)
    assert newer.lock.python.indexes == ("https://pypi.org/simple",), "without a user's password"


def test_an_upgrade_of_something_that_is_not_there_is_refused(lock: Lock, places: Upstreams) -> None:
    with pytest.raises(NothingToUpgrade, match="node gamma"):
        upgrade_lock(
            lock,
            UpgradeRequest(name="x", nodes={"gamma": None}),
            upstreams=places,
            describe_model=describe,
            report=silent,
        )
    with pytest.raises(UsageError):
        upgrade_lock(lock, UpgradeRequest(name="x"), upstreams=places, describe_model=describe, report=silent)
    moves = UpgradeRequest(name="x", packages=("not-locked",))
    with pytest.raises(NothingToUpgrade, match="package not-locked"):
        upgrade_lock(lock, moves, upstreams=places, describe_model=describe, report=silent)


def test_completing_an_old_lock_pins_what_it_did_not(places: Upstreams, wishes: LockRequest) -> None:
    old_packages = (("idna", "3.2"), ("pip", "23.0"), ("Six", "1.15.0"))
    document = {
        "schema_version": 1,
        "version_name": "old",
        "comfyui": {"repo": wishes.comfyui.repo, "commit": "main"},
        "custom_nodes": [{"name": "beta", "repo": wishes.nodes[0].repo, "commit": None}],
        "python": {
            "version": "3.11.9",
            "packages": [{"name": name, "version": version, "url": None} for name, version in old_packages],
        },
        "models": [{"name": "v", "source": "https://x.org/v.bin", "target_path": "$MODELS_DIR/v.bin"}],
    }
    old = migrate_lock(parse_lock(json.dumps(document).encode(), where="old").lock).lock
    assert parse_lock(render_lock(old), where="migrated").lock.python.packages == old.python.packages
    question = replace(resolve_request_of(old), python="3.11")
    whole = complete_lock(old, question, upstreams=places, describe_model=describe, report=silent).lock
    assert {finding.rule for finding in check_lock(whole)} == {"machine-path", "pickle"}
    assert versions(whole)["idna"] == "3.2"
    assert versions(whole)["six"] == "1.15.0", "installed by hand, and needed all the same"
    assert whole.python.requirements == ("six",)


def test_a_diff_says_what_came_went_and_changed(lock: Lock) -> None:
    other = replace(lock, system_packages=("git",), custom_nodes=lock.custom_nodes[1:])
    assert list(change_lines(diff_locks(lock, other))) == [
        f"- node {lock.custom_nodes[0].folder} {str(lock.custom_nodes[0].commit)[:12]}",
        "- system package ffmpeg",
        "+ system package git",
    ]
    assert diff_locks(lock, replace(lock, version_name="other")) == ()


def test_an_exported_pylock_is_installed_by_uv(lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text(
        export_lock(replace(lock, python=replace(lock.python, version=None)), "pylock")
    )
    run_uv(["venv", "--quiet", tmp_path / "venv"])
    synced = run_uv(["pip", "sync", tmp_path / "pylock.toml", "--python", tmp_path / "venv"])
    assert synced.exit_code == 0, synced.stderr
    frozen = run_uv(["pip", "freeze", "--python", tmp_path / "venv"]).stdout_text.split()
    assert frozen == sorted(f"{name}=={version}" for name, version in versions(lock).items())


def test_exported_requirements_are_taken_with_required_hashes(lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(export_lock(lock, "requirements"))
    run_uv(["venv", "--quiet", tmp_path / "venv"])
    arguments = [
        "pip",
        "install",
        "--require-hashes",
        "--dry-run",
        "-r",
        tmp_path / "r.txt",
        "--python",
        tmp_path / "venv",
    ]
    assert run_uv(arguments).exit_code == 0


def test_a_bill_of_materials_names_every_part_and_is_the_same_each_time(lock: Lock) -> None:
    text = export_lock(lock, "cyclonedx")
    assert export_lock(lock, "cyclonedx") == text
    document = json.loads(text)
    assert document["specVersion"] == "1.6"
    names = [component["name"] for component in document["components"]]
    assert sorted(names) == ["ComfyUI", "alpha", "beta", "ffmpeg", "idna", "iniconfig", "packaging", "v.safetensors"]
    references = [component["bom-ref"] for component in document["components"]]
    assert len(set(references)) == len(references)


def test_a_vendor_folder_needs_no_upstream_and_goes_on_where_it_was(
    lock: Lock, places: Upstreams, tmp_path: Path
) -> None:
    folder = VendorFolder(root=tmp_path / "vendor")
    gathered = vendor_lock(lock, folder, upstreams=places, report=silent)
    assert len(gathered.files) == gathered.fetched == 6
    broken = next(folder.wheels_folder.iterdir())
    broken.write_bytes(b"damaged")
    again = vendor_lock(lock, folder, upstreams=places, report=silent)
    assert (again.files, again.fetched) == (gathered.files, 1)
    assert lock.comfyui is not None
    offline = CommitSource(cache=tmp_path / "empty", bundles=folder.bundles_folder, offline=True)
    assert offline.obtain_repository("https://gone.invalid", str(lock.comfyui.commit)).is_dir()


def test_a_lock_that_is_not_pinned_cannot_be_vendored(lock: Lock, places: Upstreams, tmp_path: Path) -> None:
    loose = replace(lock, python=replace(lock.python, packages=()))
    with pytest.raises(LockIncomplete):
        vendor_lock(loose, VendorFolder(root=tmp_path / "v"), upstreams=places, report=silent)


@pytest.mark.parametrize("name", ["%2e%2e%2f%2e%2e%2fescaped.whl", "..", "a%5Cb.whl", ""])
def test_a_url_cannot_lead_out_of_a_vendor_folder(name: str, lock: Lock, places: Upstreams, tmp_path: Path) -> None:
    pin = replace(lock.python.packages[0], url=f"https://x.org/{name}")
    hostile = replace(lock, python=replace(lock.python, packages=(pin,)))
    with pytest.raises(LockIncomplete, match="url"):
        vendor_lock(hostile, VendorFolder(root=tmp_path / "deep" / "v"), upstreams=places, report=silent)
    assert list(tmp_path.iterdir()) == []


def test_a_pylock_of_packages_without_files_is_refused(lock: Lock) -> None:
    pin = replace(lock.python.packages[0], url=None)
    with pytest.raises(UsageError, match=pin.name):
        export_lock(replace(lock, python=replace(lock.python, packages=(pin,))), "pylock")
