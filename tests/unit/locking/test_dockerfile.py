"""Dockerfiles of workers: what puts something into ComfyUI is read, and every other line is said."""

from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.release_files.document import ReleaseFile
from comfypin.locking.release_files.registry import read_release_file
from comfypin.locking.repository_refs import COMFYUI, RepoSpec

HUB = "https://huggingface.co/org/repo/resolve/main"


def read(tmp_path: Path, text: str, name: str = "Dockerfile") -> ReleaseFile:
    path = tmp_path / name
    path.write_text(text)
    return read_release_file(path)


def read_run(tmp_path: Path, *lines: str) -> ReleaseFile:
    return read(tmp_path, "\n".join(("FROM runpod/worker-comfyui:5.1.0-base", *lines)))


def models(release: ReleaseFile) -> dict[str | None, str]:
    return {model.target: model.sources[0] for model in release.models}


def unread(release: ReleaseFile) -> list[str]:
    return [note for note in release.notes if "is not understood" in note]


def test_the_example_of_worker_comfyuis_own_guide_is_read_whole(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        "# install custom nodes using comfy-cli",
        "RUN comfy-node-install comfyui-kjnodes comfyui-ic-light@1.0.2",
        f"RUN comfy model download --url {HUB}/a.st --relative-path models/checkpoints --filename b.safetensors",
        "COPY input/ /comfyui/input/",
    )
    assert release.kind == "a Dockerfile"
    assert release.comfyui == RepoSpec(repo=COMFYUI, ref="v0.3.30")
    assert (release.python, release.torch) == ("3.12", "cu126")
    assert [(node.repo, node.ref) for node in release.nodes] == [
        ("registry://comfyui-kjnodes", None),
        ("registry://comfyui-ic-light", "1.0.2"),
    ]
    assert models(release) == {"checkpoints/b.safetensors": f"{HUB}/a.st"}
    assert unread(release) == [
        "line 5 is not understood: COPY input/ /comfyui/input/ (send the file with the job, or give it with --input)"
    ]
    assert "without a version, so the newest is taken: comfyui-kjnodes" in release.notes


@pytest.mark.parametrize(
    ("image", "comfyui", "torch"),
    [
        ("runpod/worker-comfyui:3.5.0-base", "v0.2.7", "cu118"),
        ("timpietruskyblibla/runpod-worker-comfy:3.6.0-base", "v0.3.26", "cu118"),
        ("runpod/worker-comfyui:4.1.0-base", "v0.3.29", "cu126"),
        ("docker.io/runpod/worker-comfyui:5.2.0-base", "v0.3.43", "cu126"),
        ("runpod/worker-comfyui:5.4.1-base-cuda12.8.1", "v0.3.44", "cu128"),
        ("runpod/worker-comfyui:5.8.5-base", None, "cu126"),
        ("runpod/worker-comfyui:latest-base", None, None),
        ("ubuntu:24.04", None, None),
    ],
)
def test_the_image_says_comfyuis_release_if_its_source_does(
    tmp_path: Path, image: str, comfyui: str | None, torch: str | None
) -> None:
    release = read(tmp_path, f"FROM {image} AS base\n")
    assert (release.comfyui.ref if release.comfyui else None, release.torch) == (comfyui, torch)


def test_an_image_with_models_brings_them(tmp_path: Path) -> None:
    release = read(tmp_path, "ARG VERSION=5.1.0\nFROM runpod/worker-comfyui:${VERSION}-flux1-dev-fp8\n")
    assert list(models(release)) == ["checkpoints/flux1-dev-fp8.safetensors"]


def test_an_image_of_an_unknown_comfyui_is_an_error_with_the_question_for_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM runpod/worker-comfyui:5.8.5-base\n")
    assert main(["lock", "create", "mine", "--from", "Dockerfile"]) == 10
    said = " ".join(capsys.readouterr().err.split())
    assert "add --comfyui URL@REF" in said
    assert "--entrypoint cat runpod/worker-comfyui:5.8.5-base /comfyui/comfyui_version.py" in said


def test_clones_become_nodes_at_what_was_checked_out(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        "WORKDIR /comfyui/custom_nodes",
        "ARG COMMIT=abcdef1",
        "RUN git clone https://x.org/o/one && cd one && git checkout $COMMIT && pip install -r requirements.txt",
        "RUN git clone --depth 1 -b v2 https://x.org/o/two.git Two",
        "RUN git clone https://x.org/o/three && \\",
        "    # a comment between",
        "    git -C three reset --hard 1234567 ; pip install -r three/requirements.txt",
        "RUN git clone https://x.org/o/elsewhere /opt/elsewhere",
    )
    assert [(node.repo, node.ref, node.name) for node in release.nodes] == [
        ("https://x.org/o/one", "abcdef1", "one"),
        ("https://x.org/o/two.git", "v2", "Two"),
        ("https://x.org/o/three", "1234567", "three"),
    ]
    assert [note.partition(":")[0] for note in unread(release)] == ["line 9 is not understood"]


def test_a_comfyui_of_the_files_own_replaces_that_of_its_image(tmp_path: Path) -> None:
    clone = (
        "FROM nvidia/cuda\nRUN git clone https://github.com/Comfy-Org/ComfyUI /app && cd /app && git checkout v0.3.50\n"
    )
    assert read(tmp_path, clone).comfyui == RepoSpec(repo="https://github.com/Comfy-Org/ComfyUI", ref="v0.3.50")
    comfy = "FROM nvidia/cuda\nRUN yes | comfy --workspace /comfyui install --version 0.3.40 --nvidia\n"
    assert read(tmp_path, comfy).comfyui == RepoSpec(repo=COMFYUI, ref="v0.3.40")


def test_downloads_into_models_become_models(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        f"ENV HUB={HUB}",
        "WORKDIR /comfyui",
        "RUN wget -q -O models/vae/v.safetensors ${HUB}/v1.safetensors \\",
        '  && curl -fsSL -H "Authorization: Bearer $TOKEN" -o models/loras/l.safetensors "$HUB/l1.safetensors?x=1&y=2"',
        "RUN aria2c -x16 -c -d models/unet -o u.safetensors $HUB/u1.safetensors",
        "RUN wget -P models/clip $HUB/c.safetensors && cd models/loras && curl -LO $HUB/d.safetensors",
        "ADD https://x.org/e.safetensors /comfyui/models/embeddings/",
        "RUN hf download org/repo f.safetensors --local-dir /comfyui/models/sams",
        "RUN wget https://x.org/tool.sh",
    )
    assert models(release) == {
        "vae/v.safetensors": f"{HUB}/v1.safetensors",
        "loras/l.safetensors": f"{HUB}/l1.safetensors?x=1&y=2",
        "unet/u.safetensors": f"{HUB}/u1.safetensors",
        "clip/c.safetensors": f"{HUB}/c.safetensors",
        "loras/d.safetensors": f"{HUB}/d.safetensors",
        "embeddings/e.safetensors": "https://x.org/e.safetensors",
        "sams/f.safetensors": "hf://org/repo/f.safetensors",
    }
    assert len(unread(release)) == 1


def test_packages_of_pip_and_apt_are_taken_and_a_torch_index_is_a_build(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        "RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg libgl1=1.2 && rm -rf /var/lib/apt",
        "RUN pip install --no-cache-dir -U accelerate==1.10.1 'numpy<3'",
        "RUN uv pip install --system insightface; python3 -m pip install 'x @ git+https://x.org/o/x'",
        "RUN pip install torch --index-url https://download.pytorch.org/whl/cu128",
        "RUN pip install -r /requirements.txt",
    )
    assert release.system_packages == ("ffmpeg", "libgl1")
    assert release.requirements[:3] == ("accelerate==1.10.1", "numpy<3", "insightface")
    assert release.requirements[-1] == "torch"
    assert release.torch == "cu128"
    assert unread(release) == [
        "line 6 is not understood: RUN pip install -r /requirements.txt (add --requirements requirements.txt)"
    ]


def test_heredocs_are_scripts_and_blocks_are_said(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        "RUN <<EOF",
        "set -e",
        "comfy-node-install one  # isn't this one",
        'if [ -n "$X" ]; then',
        "  comfy-node-install two",
        "fi",
        "comfy-node-install three",
        "EOF",
        "RUN comfy node install four",
    )
    assert [node.name for node in release.nodes] == ["one", "three", "four"]
    assert [note.partition(":")[0] for note in unread(release)] == ["line 2 is not understood"]
    assert "comfy-node-install two" in unread(release)[0]


def test_variables_of_env_are_the_engines_and_those_of_the_build_are_not(tmp_path: Path) -> None:
    release = read_run(
        tmp_path,
        'ENV A=1 B="2 3"',
        "ENV PIP_NO_INPUT=1 HF_HUB_ENABLE_HF_TRANSFER=1",
        "ENV OLD some value",
        'LABEL a="b"',
    )
    assert dict(release.engine_env) == {"A": "1", "B": "2 3", "OLD": "some value"}


def test_variables_of_the_worker_are_not_the_engines(tmp_path: Path) -> None:
    release = read_run(tmp_path, "ENV BUCKET_ENDPOINT_URL=https://b.example.com A=1", "ENV REFRESH_WORKER=true")
    assert dict(release.engine_env) == {"A": "1"}
    assert [note for note in release.notes if note.startswith("line")] == [
        "line 2: BUCKET_ENDPOINT_URL is for the worker and in no lock; set it on the endpoint (runpod.toml)",
        "line 3: REFRESH_WORKER is worker-comfyui's own and not needed here",
    ]
    assert unread(release) == []


@pytest.mark.parametrize(
    "line",
    [
        "RUN ./setup.sh",
        "RUN curl -L https://x.org/a.sh | sh",
        "RUN echo 'half",
        "COPY a.safetensors /comfyui/models/vae/",
    ],
)
def test_what_is_not_understood_is_said_with_its_line(tmp_path: Path, line: str) -> None:
    (note,) = unread(read_run(tmp_path, "", line))
    assert note.startswith(f"line 3 is not understood: {line[:4].strip()}")


@pytest.mark.parametrize("rest", ["RUN", "RUN <<EOF\nno end", "RUN [", "ENV", "RUN cd \\", "ADD", "COPY --from=x"])
def test_broken_instructions_do_not_stop_the_reader(tmp_path: Path, rest: str) -> None:
    assert read(tmp_path, f"FROM x\n{rest}").nodes == ()


@pytest.mark.parametrize("text", ["", "FROM", "ARG A=1", "from here on: yes", "RUN comfy-node-install x"])
def test_a_text_that_does_not_begin_with_an_image_is_no_dockerfile(tmp_path: Path, text: str) -> None:
    with pytest.raises(SnapshotUnreadable):
        read(tmp_path, text)
