"""What the images of runpod-workers/worker-comfyui hold, as its Dockerfile and docker-bake.hcl say it (pure).

https://github.com/runpod-workers/worker-comfyui: each version below was read at its tag. From 5.5.0 on the build takes
the newest ComfyUI of its day, and the source does not say which that was.
"""

import re
from dataclasses import dataclass

_IMAGE = re.compile(
    r"(?:docker\.io/)?(?:runpod/worker-comfyui|timpietruskyblibla/runpod-worker-comfy):"
    r"v?(?P<version>\d+\.\d+\.\d+|latest)(?:-(?P<variant>[\w.-]+))?(?:@.*)?$"
)
_HUB = "https://huggingface.co"
_FLUX_TEXT = {
    "clip/clip_l.safetensors": f"{_HUB}/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
    "clip/t5xxl_fp8_e4m3fn.safetensors": (
        f"{_HUB}/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp8_e4m3fn.safetensors"
    ),
}
_SCHNELL, _DEV = (
    f"{_HUB}/black-forest-labs/FLUX.1-schnell/resolve/main",
    f"{_HUB}/black-forest-labs/FLUX.1-dev/resolve/main",
)
_Z_IMAGE = f"{_HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files"
# What the Dockerfile downloads for each variant, at 5.8.5.
_MODELS: dict[str, dict[str, str]] = {
    "sdxl": {
        "checkpoints/sd_xl_base_1.0.safetensors": (
            f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
        ),
        "vae/sdxl_vae.safetensors": f"{_HUB}/stabilityai/sdxl-vae/resolve/main/sdxl_vae.safetensors",
        "vae/sdxl-vae-fp16-fix.safetensors": f"{_HUB}/madebyollin/sdxl-vae-fp16-fix/resolve/main/sdxl_vae.safetensors",
    },
    "sd3": {
        "checkpoints/sd3_medium_incl_clips_t5xxlfp8.safetensors": (
            f"{_HUB}/stabilityai/stable-diffusion-3-medium/resolve/main/sd3_medium_incl_clips_t5xxlfp8.safetensors"
        )
    },
    "flux1-schnell": {
        "unet/flux1-schnell.safetensors": f"{_SCHNELL}/flux1-schnell.safetensors",
        **_FLUX_TEXT,
        "vae/ae.safetensors": f"{_SCHNELL}/ae.safetensors",
    },
    "flux1-dev": {
        "unet/flux1-dev.safetensors": f"{_DEV}/flux1-dev.safetensors",
        **_FLUX_TEXT,
        "vae/ae.safetensors": f"{_DEV}/ae.safetensors",
    },
    "flux1-dev-fp8": {
        "checkpoints/flux1-dev-fp8.safetensors": f"{_HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors"
    },
    "z-image-turbo": {
        "text_encoders/qwen_3_4b.safetensors": f"{_Z_IMAGE}/text_encoders/qwen_3_4b.safetensors",
        "diffusion_models/z_image_turbo_bf16.safetensors": (
            f"{_Z_IMAGE}/diffusion_models/z_image_turbo_bf16.safetensors"
        ),
        "vae/ae.safetensors": f"{_Z_IMAGE}/vae/ae.safetensors",
        "model_patches/Z-Image-Turbo-Fun-Controlnet-Union.safetensors": (
            f"{_HUB}/alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union/resolve/main/"
            "Z-Image-Turbo-Fun-Controlnet-Union.safetensors"
        ),
    },
}
# Since the version in front: ComfyUI (None: the newest of that day), Python (None: below 3.11), torch's build.
_SINCE: tuple[tuple[tuple[int, ...], str | None, str | None, str], ...] = (
    ((5, 5, 0), None, "3.12", "cu126"),
    ((5, 3, 0), "v0.3.44", "3.12", "cu126"),
    ((5, 2, 0), "v0.3.43", "3.12", "cu126"),
    ((5, 1, 0), "v0.3.30", "3.12", "cu126"),
    ((5, 0, 0), "v0.3.30", "3.11", "cu126"),
    ((4, 0, 0), "v0.3.29", "3.11", "cu126"),
    ((3, 6, 0), "v0.3.26", None, "cu118"),
    ((3, 2, 0), "v0.2.7", None, "cu118"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerImage:
    """What is known of an image: None if its source does not say it."""

    comfyui: str | None = None
    python: str | None = None
    torch: str | None = None
    models: tuple[tuple[str, str], ...] = ()


def find_worker_image(image: str) -> WorkerImage | None:
    """Return what an image of worker-comfyui holds, or None if it is another's."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return None
    variant = match["variant"] or ""
    models = tuple(_MODELS.get(variant, {}).items())
    if match["version"] == "latest":
        return WorkerImage(models=models)
    version = tuple(int(number) for number in match["version"].split("."))
    for first_version, comfyui, python, torch in _SINCE:
        if version >= first_version:
            torch = "cu128" if variant == "base-cuda12.8.1" else torch
            return WorkerImage(comfyui=comfyui, python=python, torch=torch, models=models)
    return WorkerImage(models=models)
