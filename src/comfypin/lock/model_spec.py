"""`[TARGET=]SOURCE`, as people name models on the command line and in files, and what is pinned of them."""

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
from comfypin.lock.document import load
from comfypin.lock.errors import ModelUndescribed, SpecInvalid
from comfypin.lock.model import ModelPin

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
WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model that is wanted: where it goes (None: the source's own place), and its sources."""

    sources: tuple[str, ...]
    target: str | None = None
    allow_pickle: bool = False
    sha256: Digest | None = None
    size_bytes: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a source says of a model: an address that does not move, its file name, digest and size."""

    source: str
    filename: str
    sha256: Digest
    size_bytes: int
    folder: str | None = None


DescribeModel: TypeAlias = Callable[[str], ModelFacts]
"""Asks a source about a model, streaming it once where there is no other way. Raises `ModelError`."""


def parse_model_spec(text: str) -> ModelSpec:
    """Read one spec. Raises `SpecInvalid`."""
    before, equals, after = text.partition("=")
    target, source = (before.strip(), after.strip()) if equals and "://" not in before else (None, text.strip())
    if source.startswith((".", "/", "~")):
        source = Path(source).expanduser().resolve().as_uri()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", source) or target == "":
        raise SpecInvalid(what="model", spec=text, form=_FORM)
    return ModelSpec(sources=(source,), target=target)


def read_model_file(path: Path) -> tuple[ModelSpec, ...]:
    """The models of a file: lines of specs, a JSON list, or the models of a lock of any schema.

    Raises `SpecInvalid`, `ConfigError`, `LockInvalid`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file of models {path} cannot be read: {error}.", path=str(path)) from error
    if not text.lstrip().startswith(("{", "[")):
        lines = [line.strip() for line in text.splitlines()]
        return tuple(parse_model_spec(line) for line in lines if line and not line.startswith("#"))
    wrapped = f'{{"models": {text}}}' if text.lstrip().startswith("[") else text
    document = load(wrapped.encode(), where=str(path))
    if "schema_version" not in document:
        items = document.get("models")
        new = isinstance(items, list) and any(isinstance(item, dict) and "sources" in item for item in items)
        document = {**document, "schema_version": 3 if new else 1, "version_name": "models"}
    lock = parse_lock(json.dumps(document).encode(), where=str(path), default_name="models").lock
    return tuple(
        ModelSpec(
            sources=pin.sources,
            target=pin.target_path,
            allow_pickle=pin.allow_pickle,
            sha256=pin.sha256,
            size_bytes=pin.size_bytes,
            name=pin.name,
        )
        for pin in lock.models
    )


def pin_models(
    specs: Sequence[ModelSpec], describe: DescribeModel, *, tell: Callable[[str], None]
) -> tuple[ModelPin, ...]:
    """Pins for the specs: sources, digest and size learned, several sources of one target checked to be the same.

    Raises `ModelUndescribed` or what `describe` raises.
    """
    if specs:
        tell(f"asking for the digests of {len(specs)} models")
    with ThreadPoolExecutor(WORKERS) as pool:
        pins = list(pool.map(lambda spec: _pin(spec, describe), specs))
    merged: dict[str, ModelPin] = {}
    for pin in pins:
        earlier = merged.get(pin.target_path)
        merged[pin.target_path] = pin if earlier is None else _merge(earlier, pin)
    return tuple(merged[path] for path in sorted(merged))


def _pin(spec: ModelSpec, describe: DescribeModel) -> ModelPin:
    if not spec.sources:
        raise ModelUndescribed(source=spec.name or str(spec.target), reason="it has no source")
    facts = [describe(source) for source in spec.sources]
    first = facts[0]
    for other in facts[1:]:
        if other.sha256 != first.sha256:
            reason = f"{first.source} has {first.sha256}, and {other.source} has {other.sha256}"
            raise ModelUndescribed(source=other.source, reason=f"its sources are not the same file: {reason}")
    if spec.sha256 is not None and spec.sha256 != first.sha256:
        reason = f"{spec.sha256} is asked for, and the source has {first.sha256}"
        raise ModelUndescribed(source=first.source, reason=reason)
    target = _target(spec, first)
    return ModelPin(
        name=spec.name or PurePosixPath(target).name,
        target_path=target,
        sha256=first.sha256,
        size_bytes=first.size_bytes,
        sources=tuple(dict.fromkeys(fact.source for fact in facts)),
        allow_pickle=spec.allow_pickle,
    )


def _merge(first: ModelPin, second: ModelPin) -> ModelPin:
    if first.sha256 != second.sha256:
        reason = f"{first.sources[0]} has {first.sha256}, and {second.sources[0]} has {second.sha256}"
        raise ModelUndescribed(source=first.target_path, reason=f"two different files are to go there: {reason}")
    return replace(first, sources=tuple(dict.fromkeys((*first.sources, *second.sources))))


def _target(spec: ModelSpec, facts: ModelFacts) -> str:
    """Where the model goes, in the lock's spelling. What the source does not say is not guessed."""
    target = spec.target
    if target is None:
        folder = facts.folder or model_folder(spec.sources[0])
        if folder is None:
            raise SpecInvalid(what="model with a known place", spec=spec.sources[0], form=_FORM)
        target = f"{folder}/{facts.filename}"
    elif target.endswith("/"):
        target += facts.filename
    if not target.startswith("$"):
        target = f"$MODELS_DIR/{target}"
    root, _, rest = target.partition("/")
    if root not in ("$MODELS_DIR", "$COMFY_HOME") or not rest or ".." in PurePosixPath(rest).parts or "\\" in rest:
        raise SpecInvalid(what="place for a model", spec=target, form=_FORM)
    return f"{root}/{PurePosixPath(rest)}"


def model_folder(source: str) -> str | None:
    """The models folder (with what is below it) that a source's path goes through, None where there is none."""
    parts = PurePosixPath(unquote(urlsplit(source).path)).parts[:-1]
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] in MODEL_FOLDERS:
            return "/".join(parts[index:])
    return None
