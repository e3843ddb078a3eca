"""What is refused or read before a lock is made: repositories, refs, folders, model specs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.codec import parse_lock
from comfypin.lock.errors import ModelUndescribed, SpecInvalid
from comfypin.lock.model import Lock
from comfypin.lock.model_spec import ModelFacts, ModelSpec, parse_model_spec, pin_models, read_model_file
from comfypin.locking.create import LockRequest, create_lock
from comfypin.locking.errors import NotComfyUI, NothingDropped, SourceNotWhole
from comfypin.locking.migrate import migrate_lock
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import parse_repo_spec
from comfypin.locking.sources import Upstreams
from comfypin.tools.errors import RefMissing
from comfypin.tools.git import CommitSource
from tests.support.repositories import commit

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


def test_a_repository_that_is_no_comfyui_is_refused(wishes: LockRequest, places: Upstreams) -> None:
    with pytest.raises(NotComfyUI):
        make(replace(wishes, comfyui=wishes.nodes[0]), places)


def test_a_missing_ref_is_refused(wishes: LockRequest, places: Upstreams) -> None:
    with pytest.raises(RefMissing, match="v1"):
        make(replace(wishes, comfyui=replace(wishes.comfyui, ref="v11")), places)


def test_two_nodes_cannot_have_one_folder(wishes: LockRequest, places: Upstreams) -> None:
    with pytest.raises(SpecInvalid, match="alpha"):
        make(replace(wishes, nodes=(wishes.nodes[1], wishes.nodes[1])), places)


def test_an_install_script_that_no_node_has_is_refused(wishes: LockRequest, places: Upstreams) -> None:
    with pytest.raises(SpecInvalid, match=r"'aplha' is not a node with an install\.py; write one of: alpha"):
        make(replace(wishes, install_scripts=frozenset({"aplha"})), places)


def test_a_pointer_of_git_lfs_is_refused_before_anything_is_locked(
    wishes: LockRequest, places: Upstreams, root: Path
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    commit(root / "lfs", {"weights/x.bin": pointer})
    with pytest.raises(SourceNotWhole, match=r"the node lfs is not .*weights/x\.bin .* is a Git LFS pointer"):
        make(replace(wishes, nodes=(parse_repo_spec((root / "lfs").as_uri()),)), places)


def test_migrating_merges_entries_of_one_model() -> None:
    model = {"name": "a", "source": "hf://o/r/a", "target_path": "$MODELS_DIR/a"}
    document = {"models": [model, {**model, "source": "https://x.org/a"}]}
    made = migrate_lock(parse_lock(json.dumps(document).encode(), where="x", default_name="x").lock)
    assert made.lock.models[0].sources == ("hf://o/r/a", "https://x.org/a")
    assert len(made.notes) == 1


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        ("vae/x.safetensors=https://h/y.safetensors?a=b", "$MODELS_DIR/vae/x.safetensors"),
        ("vae/=https://h/y.safetensors?a=b", "$MODELS_DIR/vae/y.safetensors"),
        ("$COMFY_HOME/models/x=https://h/y", "$COMFY_HOME/models/x"),
        ("https://h/split_files/loras/sub/y.safetensors", "$MODELS_DIR/loras/sub/y.safetensors"),
    ],
)
def test_a_model_spec_says_where_the_model_goes(spec: str, target: str) -> None:
    (pin,) = pin_models([parse_model_spec(spec)], describe, report=silent)
    assert pin.target_path == target


@pytest.mark.parametrize("spec", ["", "x", "=https://h/y", "hf:/o/r", "https://h/somewhere/y.bin", "../x=https://h/y"])
def test_a_model_spec_that_does_not_say_enough_is_refused(spec: str) -> None:
    with pytest.raises(SpecInvalid):
        pin_models([parse_model_spec(spec)], describe, report=silent)


def test_specs_of_one_target_are_sources_of_one_model() -> None:
    specs = [parse_model_spec("vae/x=https://a/x"), parse_model_spec("vae/x=https://b/x")]
    (pin,) = pin_models(specs, describe, report=silent)
    assert pin.sources == ("https://a/x", "https://b/x")


def test_sources_that_are_not_the_same_file_are_refused() -> None:
    with pytest.raises(ModelUndescribed, match="not the same file"):
        pin_models([ModelSpec(sources=("https://a/x", "https://a/y"), target="vae/x")], describe, report=silent)


@pytest.mark.parametrize(
    "text",
    [
        "# models\nvae/x=https://h/x\n",
        '[{"name": "x", "source": "https://h/x", "target_path": "vae/x"}]',
        '{"models": [{"name": "x", "target_path": "vae/x", "sources": ["https://h/x"]}]}',
    ],
)
def test_models_are_read_from_lines_and_from_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "models").write_text(text)
    (spec,) = read_model_file(tmp_path / "models")
    assert (spec.sources, str(spec.target).removeprefix("$MODELS_DIR/")) == (("https://h/x",), "vae/x")


def test_a_requirement_to_drop_that_nobody_asks_for_is_refused_with_what_is_near(
    wishes: LockRequest, places: Upstreams
) -> None:
    asked = replace(wishes, dropped=frozenset({"iniconfg"}))
    with pytest.raises(NothingDropped, match=r"iniconfg drops nothing.*Did you mean iniconfig\?.*--override"):
        create_lock(asked, upstreams=places, describe_model=describe, report=silent)
