"""A node pack for a real ComfyUI: save nodes that name, count and annotate their files in their own ways."""

import json
from pathlib import Path
from typing import Any


class SavesItsOwnPng:
    """Counts up by itself, and writes the prompt into the picture, as save nodes of many packs do."""

    CATEGORY = "tests"
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "own"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(self, images: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        import folder_paths  # type: ignore[import-not-found]
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        output = Path(folder_paths.get_output_directory())
        target = output / filename_prefix
        target.parent.mkdir(parents=True, exist_ok=True)
        number = len(list(target.parent.glob(f"{target.name}*"))) + 1
        path = target.parent / f"{target.name}-{number}.png"
        facts = PngInfo()
        facts.add_text("prompt", json.dumps(prompt))
        for name, value in (extra_pnginfo or {}).items():
            facts.add_text(name, json.dumps(value))
        Image.fromarray((images[0].cpu().numpy() * 255).astype("uint8")).save(path, pnginfo=facts)
        subfolder = path.parent.relative_to(output).as_posix()
        return {"ui": {"images": [{"filename": path.name, "subfolder": subfolder, "type": "output"}]}}


class SavesItsOwnWebp(SavesItsOwnPng):
    """Overwrites its file, and writes the prompt as JSON within JSON into the EXIF data, as video nodes comment."""

    def save(self, images: Any, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        import folder_paths
        from PIL import Image

        path = Path(folder_paths.get_output_directory(), f"{filename_prefix}.webp")
        picture = Image.fromarray((images[0].cpu().numpy() * 255).astype("uint8"))
        exif = picture.getexif()
        exif[0x010F] = json.dumps({"prompt": json.dumps(prompt)})
        picture.save(path, exif=exif, lossless=True)
        return {"ui": {"gifs": [{"filename": path.name, "subfolder": "", "type": "output"}]}}


NODE_CLASS_MAPPINGS = {"SavesItsOwnPng": SavesItsOwnPng, "SavesItsOwnWebp": SavesItsOwnWebp}
