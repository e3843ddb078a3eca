"""Parses `[TARGET=]SOURCE`, as people name models on the command line and in files, and pins what they name."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from comfypin.digest import Digest
from comfypin.errors import ConfigError
from comfypin.lock.codec import parse_lock
from comfypin.lock.document import load_document
from comfypin.lock.errors import ModelUndescribed, SpecInvalid
from comfypin.lock.model import ModelPin
from comfypin.plurals import format_count

_FORM = (
    "[TARGET=]SOURCE, such as vae/x.safetensors=hf://org/repo/x.safetensors; TARGET is a path under the models "
    "folder, a folder when it ends with /"
)
# ComfyUI's own folders: a source whose path goes through one of them says by itself where it belongs.
MODEL_FOLDERS = frozenset(
    {
        *("audio_encoders", "checkpoints", "clip", "clip_vision", "configs", "controlnet", "diffusers"),
        *("diffusion_models", "embeddings", "gligen", "hypernetworks", "latent_upscale_models", "loras"),
        *("model_patches", "photomaker", "style_models", "text_encoders", "unet", "upscale_models", "vae"),
        "vae_approx",
    }
)
# Each asks a hub, and hubs limit the rate of requests.
WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A wanted model: its target (None: the folder that its source suggests), and its sources."""

    sources: tuple[str, ...]
    target: str | None = None
    allow_pickle: bool = False
    sha256: Digest | None = None
    size_bytes: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a source says about a model: an address that does not change, its file name, digest and size."""

    source: str
    filename: str
    sha256: Digest
    size_bytes: int
    folder: str | None = None


DescribeModel: TypeAlias = Callable[[str], ModelFacts]
"""Asks a source about a model, streaming it once if there is no other way. Raises `ModelError`."""


def parse_model_spec(spec_text: str) -> ModelSpec:
    """Parse one spec. Raises `SpecInvalid`."""
    target_text, equals, source_text = spec_text.partition("=")
    target_path, source = (
        (target_text.strip(), source_text.strip()) if equals and "://" not in target_text else (None, spec_text.strip())
    )
    if source.startswith((".", "/", "~")):
        source = Path(source).expanduser().resolve().as_uri()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", source) or target_path == "":
        raise SpecInvalid(what="model", spec=spec_text, form=_FORM)
    return ModelSpec(sources=(source,), target=target_path)


def read_model_file(file_path: Path) -> tuple[ModelSpec, ...]:
    """Read the models that a file lists: lines of specs, a JSON list, or a lock of any schema.

    Raises `SpecInvalid`, `ConfigError`, `LockInvalid`.
    """
    try:
        spec_text = file_path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file of models {file_path} cannot be read: {error}.", path=str(file_path)) from error
    if not spec_text.lstrip().startswith(("{", "[")):
        lines = [spec_line.strip() for spec_line in spec_text.splitlines()]
        return tuple(parse_model_spec(spec_line) for spec_line in lines if spec_line and not spec_line.startswith("#"))
    wrapped = f'{{"models": {spec_text}}}' if spec_text.lstrip().startswith("[") else spec_text
    document = load_document(wrapped.encode(), where=str(file_path))
    if "schema_version" not in document:
        model_list = document.get("models")
        # A bare list has no schema_version: only schema 3 calls the addresses `sources`.
        is_schema_3 = isinstance(model_list, list) and any(
            isinstance(model_entry, dict) and "sources" in model_entry for model_entry in model_list
        )
        document = {**document, "schema_version": 3 if is_schema_3 else 1, "version_name": "models"}
    lock = parse_lock(json.dumps(document).encode(), where=str(file_path), default_name="models").lock
    return tuple(
        ModelSpec(
            sources=model_pin.sources,
            target=model_pin.target_path,
            allow_pickle=model_pin.allow_pickle,
            sha256=model_pin.sha256,
            size_bytes=model_pin.size_bytes,
            name=model_pin.name,
        )
        for model_pin in lock.models
    )


def pin_models(
    specs: Sequence[ModelSpec], describe: DescribeModel, *, report: Callable[[str], None]
) -> tuple[ModelPin, ...]:
    """Return pins for the specs, with digests and sizes learned; several sources of one target must be the same file.

    Raises `ModelUndescribed` or what `describe` raises.
    """
    if specs:
        report(f"asking for the digests of {format_count(len(specs), 'model')}")
    with ThreadPoolExecutor(WORKERS) as pool:
        pins = list(pool.map(lambda model_spec: _pin_model(model_spec, describe), specs))
    # One target named twice is one model with several sources, if they have the same bytes.
    merged: dict[str, ModelPin] = {}
    for model_pin in pins:
        earlier_pin = merged.get(model_pin.target_path)
        merged[model_pin.target_path] = model_pin if earlier_pin is None else _merge_pins(earlier_pin, model_pin)
    return tuple(merged[path] for path in sorted(merged))


def _pin_model(model_spec: ModelSpec, describe: DescribeModel) -> ModelPin:
    if not model_spec.sources:
        raise ModelUndescribed(source=model_spec.name or str(model_spec.target), reason="it has no source")
    all_facts = [describe(source) for source in model_spec.sources]
    first_pin = all_facts[0]
    for other_facts in all_facts[1:]:
        # A mirror with other bytes would make the release depend on which source answered.
        if other_facts.sha256 != first_pin.sha256:
            reason = f"{first_pin.source} has {first_pin.sha256}, and {other_facts.source} has {other_facts.sha256}"
            raise ModelUndescribed(source=other_facts.source, reason=f"its sources are not the same file: {reason}")
    if model_spec.sha256 is not None and model_spec.sha256 != first_pin.sha256:
        reason = f"{model_spec.sha256} is asked for, and the source has {first_pin.sha256}"
        raise ModelUndescribed(source=first_pin.source, reason=reason)
    target_path = _target_path(model_spec, first_pin)
    return ModelPin(
        name=model_spec.name or PurePosixPath(target_path).name,
        target_path=target_path,
        sha256=first_pin.sha256,
        size_bytes=first_pin.size_bytes,
        sources=tuple(dict.fromkeys(source_facts.source for source_facts in all_facts)),
        allow_pickle=model_spec.allow_pickle,
    )


def _merge_pins(first_pin: ModelPin, second_pin: ModelPin) -> ModelPin:
    if first_pin.sha256 != second_pin.sha256:
        reason = f"{first_pin.sources[0]} has {first_pin.sha256}, and {second_pin.sources[0]} has {second_pin.sha256}"
        raise ModelUndescribed(source=first_pin.target_path, reason=f"two different files would go there: {reason}")
    return replace(first_pin, sources=tuple(dict.fromkeys((*first_pin.sources, *second_pin.sources))))


def _target_path(model_spec: ModelSpec, facts: ModelFacts) -> str:
    """Return the model's target path in the lock's spelling. What the source does not say is not guessed."""
    target_path = model_spec.target
    if target_path is None:
        models_folder = facts.folder or model_folder_of(model_spec.sources[0])
        if models_folder is None:
            raise SpecInvalid(what="model with a known folder", spec=model_spec.sources[0], form=_FORM)
        target_path = f"{models_folder}/{facts.filename}"
    elif target_path.endswith("/"):
        target_path += facts.filename
    if not target_path.startswith("$"):
        target_path = f"$MODELS_DIR/{target_path}"
    root_variable, _, relative_text = target_path.partition("/")
    if (
        root_variable not in ("$MODELS_DIR", "$COMFY_HOME")
        or not relative_text
        or ".." in PurePosixPath(relative_text).parts
        or "\\" in relative_text
    ):
        raise SpecInvalid(what="path for a model", spec=target_path, form=_FORM)
    return f"{root_variable}/{PurePosixPath(relative_text)}"


def model_folder_of(source: str) -> str | None:
    """Return the models folder (with what is below it) that a source's path goes through, or None."""
    path_parts = PurePosixPath(unquote(urlsplit(source).path)).parts[:-1]
    # From the end: `models/loras/vae/x` belongs to vae, the nearest folder.
    for index in range(len(path_parts) - 1, -1, -1):
        if path_parts[index] in MODEL_FOLDERS:
            return "/".join(path_parts[index:])
    return None
