"""Nodes of ComfyUI 0.33 that change the size of pictures and masks alike, and that stack many of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from comfypin.engine.embedded.arrays import PixelArray, reserve_memory
from comfypin.engine.embedded.declare import (
    MATCHING,
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    choice_input,
    dynamic_choice_input,
    float_input,
    growing_input,
    image_input,
    integer_input,
    mask_input,
    matching_input,
)
from comfypin.engine.embedded.nodes.transform import stack_pictures
from comfypin.engine.embedded.pixels.resize import METHODS, resize_pictures

# ComfyUI counts megapixels in units of 1024 x 1024.
_MEGAPIXEL = 1024 * 1024
# A batch of pictures has four dimensions, a batch of masks three.
_PICTURE_DIMENSIONS = 4
# ComfyUI's own limit for growing groups of pictures.
_MOST_MEMBERS = 50

# Width and height.
Size = tuple[int, int]


def resize_image_mask(
    context: NodeContext, *, input: PixelArray, resize_type: Mapping[str, Any], scale_method: str
) -> NodeResult:
    """Resize pictures or masks, in one of nine ways."""
    pictures = _as_pictures(input)
    height, width = pictures.shape[1:3]
    if resize_type["resize_type"] == "scale to multiple":
        resized = _cover_multiple(pictures, resize_type["multiple"], scale_method, context)
    else:
        size = _SIZES[resize_type["resize_type"]]((width, height), resize_type)
        if size is None:
            return (input,)
        crop = resize_type.get("crop", "disabled")
        resized = resize_pictures(
            pictures,
            width=size[0],
            height=size[1],
            method=scale_method,
            crop=crop,
            check_interrupted=context.check_interrupted,
        )
    return (resized if input.ndim == _PICTURE_DIMENSIONS else resized[..., 0],)


def batch_images(context: NodeContext, *, images: Mapping[str, PixelArray]) -> NodeResult:
    """Stack batches of pictures; all take the first one's size."""
    return (stack_pictures(list(images.values()), context),)


def batch_masks(context: NodeContext, *, masks: Mapping[str, PixelArray]) -> NodeResult:
    """Stack batches of masks; all take the first one's size."""
    return (stack_pictures([mask[..., None] for mask in masks.values()], context)[..., 0],)


def _as_pictures(pixels: PixelArray) -> PixelArray:
    return pixels if pixels.ndim == _PICTURE_DIMENSIONS else pixels[..., None]


def _size_from_sides(old_size: Size, width: int, height: int) -> Size | None:
    """Return a size of which a side may be 0: that one keeps the proportions. None if both are."""
    if not width and not height:
        return None
    width = width or max(1, round(old_size[0] * height / old_size[1]))
    return width, height or max(1, round(old_size[1] * width / old_size[0]))


def _size_from_longer(old_size: Size, longer: int) -> Size:
    width, height = old_size
    if height > width:
        return round((width / height) * longer), longer
    return (longer, round((height / width) * longer)) if width > height else (longer, longer)


def _size_from_shorter(old_size: Size, shorter: int) -> Size:
    width, height = old_size
    if height < width:
        return round((width / height) * shorter), shorter
    return (shorter, round((height / width) * shorter)) if width < height else (shorter, shorter)


def _size_from_megapixels(old_size: Size, megapixels: float) -> Size:
    factor = math.sqrt(int(megapixels * _MEGAPIXEL) / (old_size[0] * old_size[1]))
    return round(old_size[0] * factor), round(old_size[1] * factor)


def _size_of(match: PixelArray) -> Size:
    height, width = _as_pictures(match).shape[1:3]
    return width, height


def _cover_multiple(pictures: PixelArray, multiple: int, method: str, context: NodeContext) -> PixelArray:
    """Resize to cover the next smaller multiples of a number, and cut off what sticks out."""
    height, width = pictures.shape[1:3]
    target_width, target_height = width // multiple * multiple, height // multiple * multiple
    if multiple <= 1 or not target_width or not target_height or (target_width, target_height) == (width, height):
        return pictures
    width_factor, height_factor = target_width / width, target_height / height
    scaled_size = (
        (target_width, max(target_height, math.ceil(height * width_factor)))
        if width_factor >= height_factor
        else (max(target_width, math.ceil(width * height_factor)), target_height)
    )
    reserve_memory(pictures.shape[0], pictures.shape[3], *scaled_size)
    resized = resize_pictures(
        pictures,
        width=scaled_size[0],
        height=scaled_size[1],
        method=method,
        crop="disabled",
        check_interrupted=context.check_interrupted,
    )
    left, top = (scaled_size[0] - target_width) // 2, (scaled_size[1] - target_height) // 2
    return resized[:, top : top + target_height, left : left + target_width]


_SIZES: dict[str, Callable[[Size, Mapping[str, Any]], Size | None]] = {
    "scale dimensions": lambda old_size, resize_type: _size_from_sides(
        old_size, resize_type["width"], resize_type["height"]
    ),
    "scale by multiplier": lambda old_size, resize_type: (
        round(old_size[0] * resize_type["multiplier"]),
        round(old_size[1] * resize_type["multiplier"]),
    ),
    "scale longer dimension": lambda old_size, resize_type: _size_from_longer(old_size, resize_type["longer_size"]),
    "scale shorter dimension": lambda old_size, resize_type: _size_from_shorter(old_size, resize_type["shorter_size"]),
    "scale width": lambda old_size, resize_type: _size_from_sides(old_size, resize_type["width"], 0),
    "scale height": lambda old_size, resize_type: _size_from_sides(old_size, 0, resize_type["height"]),
    "scale total pixels": lambda old_size, resize_type: _size_from_megapixels(old_size, resize_type["megapixels"]),
    "match size": lambda _, resize_type: _size_of(resize_type["match"]),
}

_CROP_HELP = (
    "How to handle aspect ratio mismatch: 'disabled' stretches to fit, 'center' crops to maintain aspect ratio."
)
_CROP = choice_input("crop", "disabled", "center", tooltip=_CROP_HELP, default="center")


def _side_input(input_name: str, default: int, low: int, tooltip: str) -> NodeInput:
    return integer_input(input_name, default, low, MAX_SIDE, tooltip=tooltip)


def _side_or_auto(side: str, other: str) -> NodeInput:
    help_text = f"Target {side} in pixels. Set to 0 to auto-calculate from {other} while preserving aspect ratio."
    return _side_input(side, 512, 0, help_text)


def _edge_input(word: str) -> NodeInput:
    help_text = f"The {word} edge will be resized to this value. Aspect ratio is preserved."
    return _side_input(f"{word}_size", 512, 0, help_text)


def _single_side(side: str, other: str) -> NodeInput:
    help_text = f"Target {side} in pixels. {other} auto-adjusts to preserve aspect ratio."
    return _side_input(side, 512, 0, help_text)


_WAYS: dict[str, tuple[NodeInput, ...]] = {
    "scale dimensions": (_side_or_auto("width", "height"), _side_or_auto("height", "width"), _CROP),
    "scale by multiplier": (
        float_input(
            "multiplier",
            1.0,
            0.01,
            8.0,
            0.01,
            tooltip="Scale factor (e.g., 2.0 doubles size, 0.5 halves size).",
        ),
    ),
    "scale longer dimension": (_edge_input("longer"),),
    "scale shorter dimension": (_edge_input("shorter"),),
    "scale width": (_single_side("width", "Height"),),
    "scale height": (_single_side("height", "Width"),),
    "scale total pixels": (
        float_input(
            "megapixels",
            1.0,
            0.01,
            16.0,
            0.01,
            tooltip="Target total megapixels (e.g., 1.0 \u2248 1024\u00d71024). Aspect ratio is preserved.",
        ),
    ),
    "match size": (
        NodeInput(
            name="match",
            type="IMAGE,MASK",
            options={"tooltip": "Resize input to match the dimensions of this reference image or mask."},
        ),
        _CROP,
    ),
    "scale to multiple": (
        _side_input(
            "multiple",
            8,
            1,
            "Resize so width and height are divisible by this number. Useful for latent alignment (e.g., 8 or 64).",
        ),
    ),
}

_POST = "comfy_extras.nodes_post_processing"

CLASSES = (
    NodeClass(
        name="ResizeImageMaskNode",
        display_name="Resize Image/Mask",
        description="Resize an image or mask using various scaling methods.",
        category="image/transform",
        module=_POST,
        modern=True,
        aliases=(
            "resize",
            "resize image",
            "resize mask",
            "scale",
            "scale image",
            "scale mask",
            "image resize",
            "change size",
            "dimensions",
            "shrink",
            "enlarge",
        ),
        inputs=(
            matching_input("input", "input_type", "IMAGE,MASK"),
            dynamic_choice_input(
                "resize_type",
                _WAYS,
                tooltip="Select how to resize: by exact dimensions, scale factor, matching another image, etc.",
            ),
            choice_input(
                "scale_method",
                *METHODS,
                default="area",
                tooltip=(
                    "Interpolation algorithm. 'area' is best for downscaling, 'lanczos' for upscaling, "
                    "'nearest-exact' for pixel art."
                ),
            ),
        ),
        outputs=(MATCHING,),
        output_names=("resized",),
        output_matches=("input_type",),
        run=resize_image_mask,
    ),
    NodeClass(
        name="BatchImagesNode",
        display_name="Batch Images",
        category="image/batch",
        module=_POST,
        modern=True,
        aliases=("batch", "image batch", "batch images", "combine images", "merge images", "stack images"),
        essentials="Image Tools",
        inputs=(growing_input("images", image_input(), "image", most=_MOST_MEMBERS),),
        outputs=("IMAGE",),
        run=batch_images,
    ),
    NodeClass(
        name="BatchMasksNode",
        display_name="Batch Masks",
        category="image/mask",
        module=_POST,
        modern=True,
        aliases=("combine masks", "stack masks", "merge masks"),
        inputs=(growing_input("masks", mask_input(), "mask", most=_MOST_MEMBERS),),
        outputs=("MASK",),
        run=batch_masks,
    ),
)
