"""ComfyUI 0.33's save node that writes PNG of 8 or 16 bits, or OpenEXR."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from comfypin.atomic_files import atomic_file
from comfypin.digest import JsonValue
from comfypin.engine.embedded.arrays import PixelArray
from comfypin.engine.embedded.declare import (
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    ShownResult,
    choice_input,
    dynamic_choice_input,
    image_input,
)
from comfypin.engine.embedded.folders import find_save_location
from comfypin.engine.embedded.nodes.save import HIDDEN, metadata_texts, write_picture
from comfypin.engine.embedded.pixels.encode import encode_exr_floats, encode_png_16_bit

_DEEPEST = 65535
_BANDS = (1, 3, 4)
# Hybrid log-gamma: https://www.itu.int/rec/R-REC-BT.2100
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991072928
# The x and y of red, green, blue and white (D65), as OpenEXR stores them.
_REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_REC_2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)


def save_image_advanced(
    context: NodeContext, *, images: PixelArray, filename_prefix: str, format: Mapping[str, Any]
) -> NodeResult:
    """Keep each picture in the format that was chosen. The names have no underscore at their end."""
    suffix, depth = format["format"], format["bit_depth"]
    location = find_save_location(
        context.folders.output, filename_prefix, width=images.shape[2], height=images.shape[1]
    )
    saved: list[JsonValue] = []
    for index, picture in enumerate(images):
        context.check_interrupted()
        if picture.shape[2] not in _BANDS:
            raise ValueError(
                f"No {suffix}/{depth} encoder for {picture.shape[2]}-channel images: "
                "supported channel counts are 1 (grayscale), 3 (RGB) and 4 (RGBA)."
            )
        file_name = f"{location.stem.replace('%batch_num%', str(index))}_{location.counter + index:05}.{suffix}"
        path = location.folder / file_name
        if depth == "8-bit":
            write_picture(context, path, picture)
        else:
            with atomic_file(path, durable=False) as file:
                file.write(_encode_picture(context, picture, suffix, format.get("input_color_space", "sRGB")))
        saved.append({"filename": file_name, "subfolder": location.subfolder, "type": "output"})
    return ShownResult(ui={"images": saved}, values=(images,))


def _encode_picture(context: NodeContext, picture: PixelArray, suffix: str, space: str) -> bytes:
    texts = tuple(metadata_texts(context)) if context.metadata else ()
    if suffix == "png":
        levels = np.clip(picture * np.float32(_DEEPEST), 0, _DEEPEST).astype(np.int32).astype(np.uint16)
        return encode_png_16_bit(levels, texts)
    return encode_exr_floats(_to_linear(picture, space), texts, _REC_2020 if space == "HDR" else _REC_709)


def _to_linear(picture: PixelArray, space: str) -> PixelArray:
    """Return colours as light; alpha stays as it is."""
    colours, alpha = (picture[..., :3], picture[..., 3:]) if picture.shape[2] > 3 else (picture, picture[..., :0])
    if space == "sRGB":
        bent = ((np.maximum(colours, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
        colours = np.where(colours <= np.float32(0.04045), colours / np.float32(12.92), bent)
    elif space == "HDR":
        bent = (np.exp((np.maximum(colours, 0.5) - _HLG_C) / _HLG_A) + _HLG_B) / 12.0
        colours = np.where(colours <= np.float32(0.5), colours**2 / np.float32(3), bent)
    return np.concatenate([colours, alpha], axis=-1).astype(np.float32)


_PREFIX_HELP = (
    "The prefix for the file to save. May include formatting tokens such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width%."
)
_SPACE_HELP = (
    "Colorspace of the input tensor. The EXR is always written as scene-linear in the matching gamut.\n"
    "sRGB \u2014 input is sRGB-encoded Rec.709; the inverse sRGB EOTF is applied.\n"
    "HDR \u2014 input is HLG-encoded Rec.2020 (BT.2100); the inverse HLG OETF is applied to get scene-linear light.\n"
    "linear \u2014 input is already scene-linear (Rec.709 primaries); written through unchanged. Use this for "
    "renderer/compositor output."
)

CLASSES = (
    NodeClass(
        name="SaveImageAdvanced",
        display_name="Save Image (Advanced)",
        description="Saves the input images to your ComfyUI output directory.",
        category="image",
        module="comfy_extras.nodes_images",
        modern=True,
        aliases=("save", "save image", "export image", "output image", "write image"),
        essentials="Basics",
        inputs=(
            image_input("images", tooltip="The images to save."),
            NodeInput(
                name="filename_prefix",
                type="STRING",
                options={"tooltip": _PREFIX_HELP, "default": "ComfyUI", "multiline": False},
            ),
            dynamic_choice_input(
                "format",
                {
                    "png": (
                        choice_input("bit_depth", "8-bit", "16-bit", default="8-bit", advanced=True),
                        choice_input("input_color_space", "sRGB", default="sRGB", advanced=True),
                    ),
                    "exr": (
                        choice_input("bit_depth", "32-bit float", default="32-bit float", advanced=True),
                        choice_input(
                            "input_color_space",
                            "sRGB",
                            "HDR",
                            "linear",
                            default="sRGB",
                            advanced=True,
                            tooltip=_SPACE_HELP,
                        ),
                    ),
                },
                tooltip="The file format in which to save the image.",
            ),
        ),
        hidden=HIDDEN,
        is_output=True,
        outputs=("IMAGE",),
        output_names=("images",),
        run=save_image_advanced,
    ),
)
