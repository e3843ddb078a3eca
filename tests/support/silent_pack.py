"""A node pack for a real ComfyUI: a node that saves and says nothing, as those of some packs do."""

from pathlib import Path
from typing import Any


class SavesSilently:
    CATEGORY = "tests"
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "quiet"})}}

    def save(self, images: Any, filename_prefix: str) -> dict[str, Any]:
        import folder_paths  # type: ignore[import-not-found]
        from PIL import Image

        output = folder_paths.get_output_directory()
        folder, name, counter, *_ = folder_paths.get_save_image_path(filename_prefix, output)
        Image.fromarray((images[0].cpu().numpy() * 255).astype("uint8")).save(Path(folder, f"{name}_{counter:05}.png"))
        return {}


NODE_CLASS_MAPPINGS = {"SavesSilently": SavesSilently}
