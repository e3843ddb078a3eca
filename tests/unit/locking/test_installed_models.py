"""The models of a living ComfyUI: what is none is named, and not pinned."""

import json
import zipfile
from pathlib import Path

import pytest

from comfypin.locking.installed_models import InstalledModels, find_models
from comfypin.models.sources.huggingface import find_hub_address
from comfypin.wiring import find_model_problem


def a_safetensors(data: bytes = b"1234") -> bytes:
    header = json.dumps({"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


GOOD = a_safetensors()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "loras").mkdir(parents=True)
    (folder / "loras" / "good.safetensors").write_bytes(GOOD)
    return folder


def found(models: Path) -> InstalledModels:
    return find_models(models.parent, models, left_out=(), find_problem=find_model_problem)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"<!DOCTYPE html><html>", "it is a web page"),
        ("a.ckpt", b"\n <html><head>", "it is a web page"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("a.safetensors", a_safetensors(b"1234trailing"), "it has 12 bytes of tensors, and its header says 4"),
        ("a.safetensors", GOOD[:-1], "it has 3 bytes of tensors"),
        ("a.pth", b"", "it is empty"),
        ("a.pth", b'{"error": "gone"}', "it is JSON"),
        ("a.gguf", b"nothing", "it does not begin as GGUF does"),
        ("a.pt", b"PK\x03\x04 and no end", "it is a zip without its end"),
        ("a.safetensors.part", GOOD[:5], "it is a download that did not end"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named_and_not_pinned(
    name: str, content: bytes, reason: str, models: Path
) -> None:
    (models / "loras" / name).write_bytes(content)
    installed = found(models)
    assert list(installed.files) == ["loras/good.safetensors"]
    (note,) = installed.notes
    assert note.startswith(f"the model loras/{name} is left out: ")
    assert reason in note


def test_a_link_that_leads_nowhere_is_named(models: Path) -> None:
    (models / "loras" / "gone.safetensors").symlink_to("/nowhere/x.safetensors")
    assert found(models).notes == [
        "the model loras/gone.safetensors is left out: it is a link to /nowhere/x.safetensors, which is not there"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "good.json",
            "good.png",
            "good.civitai.info",
            "good.safetensors.json",
            "good.preview.png",
            "good.metadata.json",
        ),
        *("good.txt", "notes.json", "README.md", "other.webp"),
    ],
)
def test_what_lies_beside_models_is_named_and_not_pinned(name: str, models: Path) -> None:
    (models / "loras" / name).write_text("{}")
    installed = found(models)
    assert list(installed.files) == ["loras/good.safetensors"]
    assert installed.notes == [f"left out, because they are no models: loras/{name}"]


def test_texts_of_a_model_that_is_a_folder_are_pinned(models: Path) -> None:
    tokenizer = models / "text_encoders" / "t5" / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer.parent / "config.json").write_text("{}")
    (tokenizer / "merges.txt").write_text("a b")
    (models / "configs").mkdir()
    (models / "configs" / "v1.yaml").write_text("model: {}")
    assert sorted(found(models).files) == [
        "configs/v1.yaml",
        "loras/good.safetensors",
        "text_encoders/t5/config.json",
        "text_encoders/t5/tokenizer/merges.txt",
    ]


def test_a_good_file_of_torch_is_pinned(models: Path) -> None:
    with zipfile.ZipFile(models / "loras" / "good.pt", "w") as archive:
        archive.writestr("data.pkl", b"")
    assert "loras/good.pt" in found(models).files


def test_extra_folders_that_are_not_there_are_named(models: Path) -> None:
    (models.parent / "extra_model_paths.yaml").write_text("other:\n  base_path: /nowhere\n  loras: loras\n  vae: vae\n")
    assert found(models).notes == [
        "extra_model_paths.yaml names folders that are not there: /nowhere/loras (loras), /nowhere/vae (vae)"
    ]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://huggingface.co/o/r/resolve/main/vae/x.safetensors", "hf://o/r@main/vae/x.safetensors"),
        ("https://huggingface.co/o/r/resolve/main/x.safetensors?download=true", "hf://o/r@main/x.safetensors"),
        ("https://huggingface.co/o/r/blob/v1/x%20(1).pth", "hf://o/r@v1/x%20(1).pth"),
        ("https://huggingface.co/datasets/o/r/resolve/main/x", "hf://datasets/o/r@main/x"),
        ("https://huggingface.co/o/r/resolve/refs%2Fpr%2F3/x", "hf://o/r@refs/pr/3/x"),
        ("http://127.0.0.1:9/o/r/resolve/main/x", "hf://o/r@main/x"),
        ("https://huggingface.co/o/r", None),
        ("https://huggingface.co/o/r/tree/main/x", None),
        ("https://example.org/o/r/resolve/main/x", None),
        ("hf://o/r/x", None),
    ],
)
def test_links_of_the_hubs_pages_are_its_addresses(url: str, address: str | None) -> None:
    assert find_hub_address(url, "http://127.0.0.1:9") == address
