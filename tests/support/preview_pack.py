"""A node for a real ComfyUI that shows pictures while it works, as samplers do, and says how it was asked to."""

import time

import comfy.utils  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from comfy.cli_args import args  # type: ignore[import-not-found]
from PIL import Image


class ShowsPreviews:
    """Sends `count` previews, `size` pixels wide, one each `pause_ms`."""

    CATEGORY = "testing"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "show"

    @classmethod
    def INPUT_TYPES(cls):  # type: ignore[no-untyped-def]
        number = ("INT", {"default": 4, "min": 1, "max": 10_000})
        return {"required": {"count": number, "size": number, "pause_ms": number}}

    def show(self, count, size, pause_ms):  # type: ignore[no-untyped-def]
        bar = comfy.utils.ProgressBar(count)
        for step in range(1, count + 1):
            color = (step * 255 // count, 40, 40)
            bar.update_absolute(step, count, ("JPEG", Image.new("RGB", (size, size), color), size))
            time.sleep(pause_ms / 1000)
        picture = torch.full((1, 8, 8, 3), 0.5)
        return {"ui": {"text": [str(args.preview_method.value)]}, "result": (picture,)}


NODE_CLASS_MAPPINGS = {"ShowsPreviews": ShowsPreviews}
