"""What a readable lock still lacks."""

import pytest

from comfypin.digest import Digest
from comfypin.lock.check import check_lock
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin, VariantChoice

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = Digest("ab" * 32)
REPO = RepoPin(repo="https://x.org/c", commit=COMMIT)
PYTHON = PythonPins(version="3.12", packages=(PackagePin(name="a", version="1", sha256=(SHA,)),))


def a_lock(**parts: object) -> Lock:
    return Lock(**{"version_name": "x", "comfyui": REPO, "python": PYTHON, **parts})  # type: ignore[arg-type]


def said(**parts: object) -> list[tuple[str, str]]:
    return [(finding.rule, finding.path) for finding in check_lock(a_lock(**parts))]


def test_a_complete_lock_has_no_findings() -> None:
    model = ModelPin(
        name="m", target_path="$MODELS_DIR/m.safetensors", sha256=SHA, size_bytes=1, sources=("hf://o/r/m",)
    )
    node = NodePin(name="n", repo="https://x.org/n", commit=COMMIT)
    assert said(models=(model,), custom_nodes=(node,)) == []


def test_an_embedded_engine_needs_no_comfyui() -> None:
    assert check_lock(Lock(version_name="x", engine=EngineSpec(kind="embedded"))) == ()


@pytest.mark.parametrize("commit", [None, "main", "v1.0", COMMIT[:39], COMMIT + "0"])
def test_a_commit_that_is_not_40_hex_digits_is_not_a_pin(commit: str | None) -> None:
    assert said(comfyui=RepoPin(repo="https://x.org/c", commit=commit)) == [("commit-not-pinned", "$.comfyui.commit")]


def test_an_archive_needs_a_checksum_and_no_commit() -> None:
    node = NodePin(name="n", repo=None, archive="https://x.org/n.zip")
    assert said(custom_nodes=(node,)) == [("no-checksum", "$.custom_nodes[0].sha256")]


def test_a_pickle_is_said_unless_it_is_wanted() -> None:
    model = {
        "name": "m",
        "target_path": "$MODELS_DIR/m.PTH",
        "sha256": SHA,
        "size_bytes": 1,
        "sources": ("hf://o/r/m",),
    }
    assert said(models=(ModelPin(**model),)) == [("pickle", "$.models[0].target_path")]  # type: ignore[arg-type]
    assert said(models=(ModelPin(**model, allow_pickle=True),)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@x.org/c", "https://x.org/c?token=hunter2", "https://hunter2@x.org/c"]
)
def test_a_secret_is_found_and_not_repeated(url: str) -> None:
    findings = check_lock(
        a_lock(comfyui=RepoPin(repo=url, commit=COMMIT), engine=EngineSpec(env={"HF_TOKEN": "hunter2"}))
    )
    assert [finding.rule for finding in findings] == ["secret", "secret"]
    assert "hunter2" not in "".join(map(str, findings))


@pytest.mark.parametrize("inputs", [{"api_key": "hunter2"}, {"url": "https://x.org/?token=hunter2"}])
def test_a_secret_in_the_warm_up_is_found_and_not_repeated(inputs: dict[str, str]) -> None:
    warmup = {"1": {"class_type": "Service", "inputs": {**inputs, "max_tokens": 5, "token_normalization": "none"}}}
    (finding,) = check_lock(a_lock(engine=EngineSpec(warmup=warmup)))  # type: ignore[arg-type]
    assert finding.rule == "secret"
    assert finding.path.startswith("$.engine.warmup")
    assert "hunter2" not in str(finding)


def test_a_requirement_that_no_package_meets_is_found() -> None:
    python = {"version": "3.12", "packages": PYTHON.packages}
    lacking = PythonPins(**python, requirements=("a>=1", "alembic>=1.13"))  # type: ignore[arg-type]
    assert said(python=lacking) == [("package-not-pinned", "$.python.requirements[1]")]
    (finding,) = check_lock(a_lock(python=lacking, version_name="our flux"))
    assert finding.allowed == "comfypin lock upgrade --lock 'our flux' --name 'our flux-2' --package alembic adds it"
    excused = PythonPins(
        **python,  # type: ignore[arg-type]
        requirements=("A", "b; sys_platform == 'win32'", "c", "d", "e", "https://x.org/f.zip"),
        dropped=("c",),
        overrides=("d; sys_platform == 'never'",),
        variants=(VariantChoice(name="a", replaces=("e",)),),
    )
    assert said(python=excused) == []


def test_what_a_refused_lock_advises_adds_what_it_lacks() -> None:
    """`lock migrate --complete` pins branches and hashes; it adds no package that a captured ComfyUI lacked."""
    lacking = PythonPins(version="3.12", packages=PYTHON.packages, requirements=("alembic>=1.13",))
    for parts, advises_migrate in (
        ({"python": lacking}, False),
        ({"comfyui": RepoPin(repo="https://x.org/c", ref="main")}, True),
    ):
        refused = LockIncomplete(where="x", findings=check_lock(a_lock(**parts)))
        assert ("lock migrate --complete" in str(refused)) is advises_migrate
