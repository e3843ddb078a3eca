"""Recognises files in a models folder that are no models: failed downloads, pointers, and what lies beside models."""

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from comfypin.lock.model_spec import MODEL_FOLDERS

FindProblem: TypeAlias = Callable[[Path], str | None]
"""Returns what is wrong with a file of a known model format, or None."""

# What ComfyUI lists in its own folders (folder_paths.py), and the formats of well-known packs.
MODEL_SUFFIXES = frozenset(
    {
        *(".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx"),
        *(".engine", ".trt", ".tflite", ".task", ".npz", ".h5", ".msgpack", ".pb", ".torchscript", ".jit"),
    }
)
# Pictures and films of what a model makes, and what managers of models write beside them.
_SIDECAR_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".avif", ".html", ".url"})
_SIDECAR_ENDINGS = (
    ".civitai.info",
    ".metadata.json",
    ".cm-info.json",
    ".preview.json",
    ".swarm.json",
    ".rgthree-info.json",
)
_DOWNLOAD_SUFFIXES = frozenset({".part", ".partial", ".tmp", ".aria2", ".incomplete", ".crdownload", ".download"})
_TEXT_SUFFIXES = frozenset({".json", ".txt", ".md", ".yaml", ".yml", ".lock", ".csv", ".sha256"})
# A folder with one of these is itself a model, whose texts belong to it (a tokenizer, a pipeline of diffusers).
_FOLDER_MODEL_FILES = ("config.json", "model_index.json", "tokenizer_config.json", "tokenizer.json")
# Folders whose files are texts, and folders that hold whole pipelines.
_TEXT_FOLDERS = frozenset({"configs", "diffusers"})
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_PAGE_HEADS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<!--")
# What tells a web page, an LFS pointer or a format by its first bytes.
HEAD_BYTES = 512


def is_sidecar(target: PurePosixPath, model_path: Path) -> bool:
    """Return whether a file is beside models without being one. `target` is its path below a models folder."""
    file_name, suffix = target.name.lower(), target.suffix.lower()
    if suffix in _SIDECAR_SUFFIXES or file_name.endswith(_SIDECAR_ENDINGS):
        return True
    if suffix not in _TEXT_SUFFIXES or target.parts[0] in _TEXT_FOLDERS:
        return False
    if _has_sibling_model(model_path):
        return True
    # loras/notes.json: ComfyUI lists no such file there, and a model of several files has a folder of its own.
    return suffix in (".md", ".lock") or not _is_in_folder_model(target, model_path)


def _has_sibling_model(model_path: Path) -> bool:
    """Return whether `x.json` lies beside `x.safetensors`, or is `x.safetensors.json`."""
    stem = model_path.name[: -len(model_path.suffix)]
    if PurePosixPath(stem).suffix.lower() in MODEL_SUFFIXES:
        return model_path.with_name(stem).is_file()
    # A folder that is a model has config.json beside config.*, but no model of that name.
    return any(model_path.with_name(stem + suffix).is_file() for suffix in MODEL_SUFFIXES)


def _is_in_folder_model(target: PurePosixPath, model_path: Path) -> bool:
    if target.parts[0] in MODEL_FOLDERS and len(target.parts) == 2:
        return False
    folder = model_path.parent
    # Up to the kind's own folder: text_encoders/t5/tokenizer/merges.txt belongs to t5.
    for _ in range(len(target.parts) - 1):
        if any((folder / file_name).is_file() for file_name in _FOLDER_MODEL_FILES):
            return True
        folder = folder.parent
    return False


def find_suspicion(model_path: Path, find_problem: FindProblem) -> str | None:
    """Return why a file cannot be the model that its name promises, or None.

    Reads its first bytes, and the header of formats that have one; it never loads a model.
    """
    if model_path.is_symlink() and not model_path.exists():
        return f"it is a link to {model_path.readlink()}, which is not there"
    if model_path.suffix.lower() in _DOWNLOAD_SUFFIXES:
        return "it is a download that did not end"
    try:
        with model_path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        return _suspect_head(model_path, head) or find_problem(model_path)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _suspect_head(model_path: Path, head: bytes) -> str | None:
    suffix, head_text = model_path.suffix.lower(), head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_LFS_HEAD):
        return "it is a pointer of Git LFS and not the file (git lfs pull)"
    if suffix not in MODEL_SUFFIXES:
        return None
    if not head:
        return "it is empty"
    if head_text.startswith(_PAGE_HEADS):
        return "it is a web page"
    if head_text.startswith((b'{"', b"{\n", b"{ ", b"{'")):
        return "it is JSON, such as the error of a server"
    if suffix == ".gguf" and not head.startswith(b"GGUF"):
        return "it does not begin as GGUF does"
    # torch.save writes a zip, whose directory is at the end: a download that broke off has none.
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(model_path):
        return "it is a zip without its end"
    return None
