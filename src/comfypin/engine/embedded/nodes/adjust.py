"""Nodes of ComfyUI 0.33 that adjust, cut out and show pictures and masks."""

from collections.abc import Callable, Mapping

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray, from_bytes, to_bytes
from comfypin.engine.embedded.declare import (
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    NodeValue,
    ShownResult,
    float_input,
    image_input,
    integer_input,
    mask_input,
)
from comfypin.engine.embedded.nodes.save import HIDDEN, show_pictures, temporary_files
from comfypin.engine.embedded.pixels.resize import resize_pictures

# The dataset nodes of ComfyUI have a lower limit than its other nodes.
_LARGEST_SIDE = 8192


def adjust_brightness(context: NodeContext, *, images: PixelArray, factor: float) -> NodeResult:
    """Make pictures darker or brighter."""
    context.check_interrupted()
    return (np.clip(images * np.float32(factor), np.float32(0), np.float32(1)),)


def adjust_contrast(context: NodeContext, *, images: PixelArray, factor: float) -> NodeResult:
    """Move colours towards grey or away from it."""
    context.check_interrupted()
    half = np.float32(0.5)
    return (np.clip((images - half) * np.float32(factor) + half, np.float32(0), np.float32(1)),)


def normalize_images(context: NodeContext, *, images: PixelArray, mean: float, std: float) -> NodeResult:
    """Shift and stretch colours; they may leave 0..1."""
    context.check_interrupted()
    return ((images - np.float32(mean)) / np.float32(std),)


def center_crop_images(context: NodeContext, *, images: PixelArray, width: int, height: int) -> NodeResult:
    """Cut out the middle; whatever is smaller stays. Colours go through bytes, as in ComfyUI."""
    context.check_interrupted()
    old_height, old_width = images.shape[1:3]
    left, top = max(0, (old_width - width) // 2), max(0, (old_height - height) // 2)
    return (from_bytes(to_bytes(images[:, top : top + height, left : left + width])),)


def resize_by_shorter_edge(context: NodeContext, *, images: PixelArray, shorter_edge: int) -> NodeResult:
    """Resize so that the shorter side has a length."""
    height, width = images.shape[1:3]
    return (_resize_side(context, images, shorter_edge, is_width=width < height),)


def resize_by_longer_edge(context: NodeContext, *, images: PixelArray, longer_edge: int) -> NodeResult:
    """Resize so that the longer side has a length."""
    height, width = images.shape[1:3]
    return (_resize_side(context, images, longer_edge, is_width=width > height),)


def _resize_side(context: NodeContext, images: PixelArray, side: int, *, is_width: bool) -> PixelArray:
    """Resize to a width or a height; the other side is cut off, not rounded, to a whole number."""
    old_height, old_width = images.shape[1:3]
    width = side if is_width else int(old_width * (side / old_height))
    height = int(old_height * (side / old_width)) if is_width else side
    return resize_pictures(
        images,
        width=width,
        height=height,
        method="lanczos",
        crop="disabled",
        check_interrupted=context.check_interrupted,
    )


def image_crop_v2(context: NodeContext, *, image: PixelArray, crop_region: Mapping[str, int]) -> NodeResult:
    """Cut out a box, and show it."""
    context.check_interrupted()
    # At least one pixel stays, as in ComfyUI, wherever the box is.
    x = min(crop_region.get("x", 0), image.shape[2] - 1)
    y = min(crop_region.get("y", 0), image.shape[1] - 1)
    width, height = crop_region.get("width", 512), crop_region.get("height", 512)
    return show_pictures(context, image[:, y : y + height, x : x + width])


def mask_preview(context: NodeContext, *, mask: PixelArray) -> NodeResult:
    """Show masks as grey pictures."""
    flat = mask.reshape(-1, *mask.shape[-2:])
    return show_pictures(context, np.repeat(flat[..., None], 3, axis=3), value=mask)


def image_compare(
    context: NodeContext,
    *,
    compare_view: NodeValue,
    image_a: PixelArray | None = None,
    image_b: PixelArray | None = None,
) -> NodeResult:
    """Show two batches side by side."""
    context.check_interrupted()
    sides = {"a": image_a, "b": image_b}
    return ShownResult(
        ui={
            f"{side}_images": () if images is None else temporary_files(context, images, f"comfy.compare.{side}")
            for side, images in sides.items()
        }
    )


def _image_class(
    class_name: str,
    run: Callable[..., NodeResult],
    display_name: str,
    description: str,
    category: str,
    *inputs: NodeInput,
    aliases: tuple[str, ...] | None = None,
    deprecated: bool = False,
) -> NodeClass:  # fmt: skip
    """Return a class of the family that ComfyUI builds on one base: pictures in, pictures out."""
    return NodeClass(
        name=class_name,
        display_name=display_name,
        description=description,
        category=category,
        module="comfy_extras.nodes_dataset",
        modern=True,
        experimental=True,
        deprecated=deprecated,
        aliases=aliases,
        inputs=(image_input("images", tooltip="Image to process."), *inputs),
        outputs=("IMAGE",),
        output_names=("images",),
        output_tooltips=("Processed images",),
        run=run,
    )


def _edge_class(class_name: str, run: Callable[..., NodeResult], word: str, default: int) -> NodeClass:
    return _image_class(
        class_name,
        run,
        f"Resize Images by {word.title()} Edge (DEPRECATED)",
        f"Resize images so that the {word} edge matches the specified dimension while preserving aspect ratio.",
        "image/transform",
        integer_input(
            f"{word}_edge", default, 1, _LARGEST_SIDE, None, tooltip=f"Target dimension for the {word} edge."
        ),
        deprecated=True,
    )


def _factor_input(word: str, less: str, more: str) -> NodeInput:
    help_text = f"{word} factor. 1.0 = no change, <1.0 = {less}, >1.0 = {more}."
    return float_input("factor", 1.0, 0.0, 2.0, None, tooltip=help_text)


_BOX: Mapping[str, int] = {"x": 0, "y": 0, "width": 512, "height": 512}

CLASSES = (
    _image_class(
        "AdjustBrightness",
        adjust_brightness,
        "Adjust Brightness",
        "Adjust the brightness of an image.",
        "image/adjustments",
        _factor_input("Brightness", "darker", "brighter"),
        aliases=("brightness",),
    ),
    _image_class(
        "AdjustContrast",
        adjust_contrast,
        "Adjust Contrast",
        "Adjust the contrast of an image.",
        "image/adjustments",
        _factor_input("Contrast", "less contrast", "more contrast"),
        aliases=("contrast",),
    ),
    _image_class(
        "NormalizeImages",
        normalize_images,
        "Normalize Image Colors",
        "Normalize images using mean and standard deviation.",
        "image/color",
        float_input("mean", 0.5, 0.0, 1.0, None, tooltip="Mean value for normalization.", advanced=True),
        float_input("std", 0.5, 0.001, 1.0, None, tooltip="Standard deviation for normalization.", advanced=True),
        aliases=("normalize", "normalize colors"),
    ),
    _image_class(
        "CenterCropImages",
        center_crop_images,
        "Crop Image (Center)",
        "Center crop an image to the specified dimensions.",
        "image/transform",
        integer_input("width", 512, 1, _LARGEST_SIDE, None, tooltip="Crop width."),
        integer_input("height", 512, 1, _LARGEST_SIDE, None, tooltip="Crop height."),
        aliases=("crop", "cut", "trim"),
    ),
    _edge_class("ResizeImagesByShorterEdge", resize_by_shorter_edge, "shorter", 512),
    _edge_class("ResizeImagesByLongerEdge", resize_by_longer_edge, "longer", 1024),
    NodeClass(
        name="ImageCropV2",
        display_name="Crop Image",
        description="Crop an image to the specified dimensions.",
        category="image/transform",
        module="comfy_extras.nodes_images",
        modern=True,
        intermediate=True,
        aliases=("crop", "cut", "trim"),
        essentials="Image Tools",
        inputs=(
            image_input(),
            NodeInput(
                name="crop_region",
                type="BOUNDING_BOX",
                options={"default": dict(_BOX), "socketless": True, "component": "ImageCrop"},
            ),
        ),
        outputs=("IMAGE",),
        run=image_crop_v2,
    ),
    NodeClass(
        name="ImageCompare",
        display_name="Compare Images",
        description="Compares two images side by side with a slider.",
        category="image",
        module="comfy_extras.nodes_image_compare",
        modern=True,
        experimental=True,
        essentials="Image Tools",
        inputs=(
            NodeInput(name="compare_view", type="IMAGECOMPARE", options={"socketless": True}),
            NodeInput(name="image_a", type="IMAGE", optional=True),
            NodeInput(name="image_b", type="IMAGE", optional=True),
        ),
        hidden=HIDDEN,
        is_output=True,
        run=image_compare,
    ),
    NodeClass(
        name="MaskPreview",
        display_name="Preview Mask",
        description="Preview the masks without saving them to the ComfyUI output directory.",
        category="image/mask",
        module="comfy_extras.nodes_mask",
        modern=True,
        aliases=("show mask", "view mask", "inspect mask", "debug mask"),
        inputs=(mask_input(),),
        hidden=HIDDEN,
        is_output=True,
        outputs=("MASK",),
        output_names=("mask",),
        run=mask_preview,
    ),
)
