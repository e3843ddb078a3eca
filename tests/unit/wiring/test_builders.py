"""Of the programs that build images, the first that really builds is taken; a push asks the one that has the image."""

import os
import stat
from pathlib import Path

import pytest

from comfypin.image.errors import NoBuilder, NoSuchImage
from comfypin.wiring import open_builder, open_builder_of

WORKS = "exit 0"
# As Docker 28 does without its plugin: it answers, and builds nothing.
BROKEN_BUILDX = """case "$1" in
    build) echo "ERROR: BuildKit is enabled but the buildx component is missing or broken." >&2; exit 1;;
    image) [ "$2" = inspect ] && exit 1;;
esac
exit 0"""
HAS_NO_IMAGE = """case "$1 $2" in
    "image inspect"|"inspect --type") exit 1;;
esac
exit 0"""
HAS_IMAGE = """case "$1" in
    inspect) echo '{"FromImageID": "1", "OCIv1": {"rootfs": {"diff_ids": []}}}';;
    images) echo '[{"size": "1 MB"}]';;
esac
exit 0"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("docker", "buildah", "podman"):
        install(tmp_path, name, "exit 125")
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_docker_whose_buildx_is_broken_falls_through_and_is_told(programs: Path) -> None:
    install(programs, "docker", BROKEN_BUILDX)
    install(programs, "buildah", WORKS)
    told: list[str] = []
    assert open_builder("auto", report=told.append).name == "buildah"
    (sentence,) = told
    assert "buildx component is missing or broken" in sentence
    assert sentence.endswith("building with buildah.")


def test_what_works_at_once_is_taken_without_a_word(programs: Path) -> None:
    install(programs, "docker", WORKS)
    told: list[str] = []
    assert open_builder("auto", report=told.append).name == "docker"
    assert told == []


def test_a_builder_that_was_asked_for_is_not_replaced(programs: Path) -> None:
    install(programs, "docker", BROKEN_BUILDX)
    install(programs, "buildah", WORKS)
    with pytest.raises(NoBuilder, match="docker cannot build"):
        open_builder("docker", report=lambda _line: None)


def test_if_none_builds_all_reasons_are_told(programs: Path) -> None:
    install(programs, "docker", BROKEN_BUILDX)
    with pytest.raises(NoBuilder) as none:
        open_builder("auto", report=lambda _line: None)
    assert [reason.split()[0] for reason in none.value.tried] == ["docker", "buildah", "podman"]


def test_a_push_asks_the_one_that_has_the_image(programs: Path) -> None:
    install(programs, "docker", HAS_NO_IMAGE)
    install(programs, "buildah", HAS_IMAGE)
    assert open_builder_of("x:1", "auto").name == "buildah"


def test_an_image_that_nobody_has_is_missing(programs: Path) -> None:
    install(programs, "docker", HAS_NO_IMAGE)
    install(programs, "buildah", HAS_NO_IMAGE)
    with pytest.raises(NoSuchImage):
        open_builder_of("x:1", "auto")
