"""Reads the model-list.json of ComfyUI-Manager: models by address, without digests (pure).

Format as ComfyUI-Manager documents it; its data is fetched by users and never part of this package.
"""

from collections.abc import Mapping
from pathlib import Path

from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts

# ComfyUI's folder for a type, used where save_path is "default".
_FOLDERS = {
    "checkpoint": "checkpoints",
    "checkpoints": "checkpoints",
    "unclip": "checkpoints",
    "clip": "text_encoders",
    "clip_vision": "clip_vision",
    "controlnet": "controlnet",
    "t2i-adapter": "controlnet",
    "t2i-style": "controlnet",
    "diffusion_model": "diffusion_models",
    "unet": "diffusion_models",
    "embedding": "embeddings",
    "embeddings": "embeddings",
    "gligen": "gligen",
    "lora": "loras",
    "style": "style_models",
    "taesd": "vae_approx",
    "text_encoders": "text_encoders",
    "upscale": "upscale_models",
    "upscale_models": "upscale_models",
    "vae": "vae",
    "vae_approx": "vae_approx",
}


def is_model_list(document: object) -> bool:
    """Return whether a document lists models with `save_path` and `url`."""
    models = document.get("models") if isinstance(document, Mapping) else None
    return (
        isinstance(models, list)
        and bool(models)
        and all(isinstance(model, Mapping) and {"save_path", "url"} <= model.keys() for model in models)
    )


def read_model_list(document: object, path: Path) -> ReleaseFile:
    """Read a model-list.json. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    listed = document_path.mapping(document, "the file").get("models")
    for index, model in enumerate(document_path.objects(listed, "models")):
        entry_label = f"models[{index}]"
        address = document_path.text(model.get("url"), f"{entry_label}.url")
        filename = document_path.text(model.get("filename"), f"{entry_label}.filename")
        folder = _folder_of(str(model.get("save_path") or "default"), str(model.get("type", "")))
        title = model.get("name")
        names = (filename, *([title] if isinstance(title, str) else []))
        # The Manager unpacks those; a lock pins files as they are.
        if filename == "<huggingface>":
            parts.refuse("model", f"{entry_label} ({title}) is a whole repository and not a file", *names)
        elif folder is None:
            parts.refuse(
                "model", f"the model {filename} is of the type {model.get('type')!r}, whose folder is unknown", *names
            )
        else:
            parts.models.append(
                ModelSpec(sources=(address,), target=f"{folder}/{filename}", name=str(title or filename))
            )
    return parts.to_release("a model-list.json of ComfyUI-Manager")


def _folder_of(save_path: str, kind: str) -> str | None:
    """Return the folder below models, or below ComfyUI for what belongs to a node."""
    save_path = save_path.strip("/").replace("\\", "/")
    if save_path in ("", "default"):
        return _FOLDERS.get(kind.strip().lower())
    if save_path == "custom_nodes" or save_path.startswith("custom_nodes/"):
        return f"$COMFY_HOME/{save_path}"
    # Both spellings are in use: "loras/x" and "models/loras/x".
    return save_path.removeprefix("models/")
