"""Nodes of ComfyUI 0.33 that change the size of pictures and masks alike, and that stack many of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from comfypin.engine.embedded.arrays import Pixels, reserve
from comfypin.engine.embedded.declare import (
    MATCHING,
    MAX_SIDE,
    Call,
    Input,
    NodeClass,
    Result,
    choice,
    dynamic_choice,
    growing,
    image,
    mask,
    matching,
    number,
    whole,
)
from comfypin.engine.embedded.nodes.transform import stack_pictures
from comfypin.engine.embedded.pixels.resize import METHODS, resize

_MEGAPIXEL = 1024 * 1024
_PICTURE_DIMENSIONS = 4
_MOST_MEMBERS = 50

Size = tuple[int, int]
"""Width and height."""


def resize_image_mask(call: Call, *, input: Pixels, resize_type: Mapping[str, Any], scale_method: str) -> Result:
    """Resize pictures or masks, in one of nine ways."""
    pictures = _as_pictures(input)
    height, width = pictures.shape[1:3]
    if resize_type["resize_type"] == "scale to multiple":
        resized = _cover_multiple(pictures, resize_type["multiple"], scale_method, call)
    else:
        size = _SIZES[resize_type["resize_type"]]((width, height), resize_type)
        if size is None:
            return (input,)
        crop = resize_type.get("crop", "disabled")
        resized = resize(pictures, width=size[0], height=size[1], method=scale_method, crop=crop, check=call.check)
    return (resized if input.ndim == _PICTURE_DIMENSIONS else resized[..., 0],)


def batch_images(call: Call, *, images: Mapping[str, Pixels]) -> Result:
    """Stack batches of pictures; all take the first one's size."""
    return (stack_pictures(list(images.values()), call),)


def batch_masks(call: Call, *, masks: Mapping[str, Pixels]) -> Result:
    """Stack batches of masks; all take the first one's size."""
    return (stack_pictures([each[..., None] for each in masks.values()], call)[..., 0],)


def _as_pictures(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == _PICTURE_DIMENSIONS else pixels[..., None]


def _given_sides(old: Size, width: int, height: int) -> Size | None:
    """Return a size of which a side may be 0: that one keeps the proportions. None if both are."""
    if not width and not height:
        return None
    width = width or max(1, round(old[0] * height / old[1]))
    return width, height or max(1, round(old[1] * width / old[0]))


def _given_longer(old: Size, longer: int) -> Size:
    width, height = old
    if height > width:
        return round((width / height) * longer), longer
    return (longer, round((height / width) * longer)) if width > height else (longer, longer)


def _given_shorter(old: Size, shorter: int) -> Size:
    width, height = old
    if height < width:
        return round((width / height) * shorter), shorter
    return (shorter, round((height / width) * shorter)) if width < height else (shorter, shorter)


def _given_megapixels(old: Size, megapixels: float) -> Size:
    factor = math.sqrt(int(megapixels * _MEGAPIXEL) / (old[0] * old[1]))
    return round(old[0] * factor), round(old[1] * factor)


def _size_of(match: Pixels) -> Size:
    height, width = _as_pictures(match).shape[1:3]
    return width, height


def _cover_multiple(pictures: Pixels, multiple: int, method: str, call: Call) -> Pixels:
    """Resize to cover the next smaller multiples of a number, and cut off what sticks out."""
    height, width = pictures.shape[1:3]
    wide, tall = width // multiple * multiple, height // multiple * multiple
    if multiple <= 1 or not wide or not tall or (wide, tall) == (width, height):
        return pictures
    across, down = wide / width, tall / height
    scaled = (
        (wide, max(tall, math.ceil(height * across))) if across >= down else (max(wide, math.ceil(width * down)), tall)
    )
    reserve(pictures.shape[0], pictures.shape[3], *scaled)
    resized = resize(pictures, width=scaled[0], height=scaled[1], method=method, crop="disabled", check=call.check)
    left, top = (scaled[0] - wide) // 2, (scaled[1] - tall) // 2
    return resized[:, top : top + tall, left : left + wide]


_SIZES: dict[str, Callable[[Size, Mapping[str, Any]], Size | None]] = {
    "scale dimensions": lambda old, asked: _given_sides(old, asked["width"], asked["height"]),
    "scale by multiplier": lambda old, asked: (
        round(old[0] * asked["multiplier"]),
        round(old[1] * asked["multiplier"]),
    ),
    "scale longer dimension": lambda old, asked: _given_longer(old, asked["longer_size"]),
    "scale shorter dimension": lambda old, asked: _given_shorter(old, asked["shorter_size"]),
    "scale width": lambda old, asked: _given_sides(old, asked["width"], 0),
    "scale height": lambda old, asked: _given_sides(old, 0, asked["height"]),
    "scale total pixels": lambda old, asked: _given_megapixels(old, asked["megapixels"]),
    "match size": lambda _, asked: _size_of(asked["match"]),
}

_CROP_HELP = (
    "How to handle aspect ratio mismatch: 'disabled' stretches to fit, 'center' crops to maintain aspect ratio."
)
_CROP = choice("crop", "disabled", "center", tooltip=_CROP_HELP, default="center")


def _side(name: str, default: int, low: int, tooltip: str) -> Input:
    return whole(name, default, low, MAX_SIDE, tooltip=tooltip)


def _auto(side: str, other: str) -> Input:
    help_text = f"Target {side} in pixels. Set to 0 to auto-calculate from {other} while preserving aspect ratio."
    return _side(side, 512, 0, help_text)


def _edge(word: str) -> Input:
    help_text = f"The {word} edge will be resized to this value. Aspect ratio is preserved."
    return _side(f"{word}_size", 512, 0, help_text)


def _alone(side: str, other: str) -> Input:
    help_text = f"Target {side} in pixels. {other} auto-adjusts to preserve aspect ratio."
    return _side(side, 512, 0, help_text)


_WAYS: dict[str, tuple[Input, ...]] = {
    "scale dimensions": (_auto("width", "height"), _auto("height", "width"), _CROP),
    "scale by multiplier": (
        number(
            "multiplier",
            1.0,
            0.01,
            8.0,
            0.01,
            tooltip="Scale factor (e.g., 2.0 doubles size, 0.5 halves size).",
        ),
    ),
    "scale longer dimension": (_edge("longer"),),
    "scale shorter dimension": (_edge("shorter"),),
    "scale width": (_alone("width", "Height"),),
    "scale height": (_alone("height", "Width"),),
    "scale total pixels": (
        number(
            "megapixels",
            1.0,
            0.01,
            16.0,
            0.01,
            tooltip="Target total megapixels (e.g., 1.0 \u2248 1024\u00d71024). Aspect ratio is preserved.",
        ),
    ),
    "match size": (
        Input(
            name="match",
            type="IMAGE,MASK",
            options={"tooltip": "Resize input to match the dimensions of this reference image or mask."},
        ),
        _CROP,
    ),
    "scale to multiple": (
        _side(
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
            matching("input", "input_type", "IMAGE,MASK"),
            dynamic_choice(
                "resize_type",
                _WAYS,
                tooltip="Select how to resize: by exact dimensions, scale factor, matching another image, etc.",
            ),
            choice(
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
        inputs=(growing("images", image(), "image", most=_MOST_MEMBERS),),
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
        inputs=(growing("masks", mask(), "mask", most=_MOST_MEMBERS),),
        outputs=("MASK",),
        run=batch_masks,
    ),
)
