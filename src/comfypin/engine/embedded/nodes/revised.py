"""What ComfyUI 0.33 changed in classes that 0.3.64 had already."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import MAX_SIDE, Input, NodeClass, Result, whole
from comfypin.engine.embedded.nodes import load, masks, primitive, scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The changes of one class; None and empty values leave it as it is.

    `schema`: ComfyUI declares it by the newer schema now. `options`: new or other options of inputs, by input.
    """

    schema: bool = False
    display_name: str | None = None
    category: str | None = None
    description: str | None = None
    aliases: tuple[str, ...] | None = None
    essentials: str | None = None
    deprecated: bool = False
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    added: tuple[Input, ...] = ()
    run: Callable[..., Result] | None = None

    def apply(self, kind: NodeClass) -> NodeClass:
        """Return the class as the newer release has it."""
        return replace(
            kind,
            modern=kind.modern or self.schema,
            display_name=self.display_name or kind.display_name,
            category=self.category or kind.category,
            description=self.description or kind.description,
            aliases=self.aliases,
            essentials=self.essentials,
            deprecated=self.deprecated,
            outputs=self.outputs or kind.outputs,
            output_names=self.output_names or kind.output_names,
            inputs=(*(self._revised(each) for each in kind.inputs), *self.added),
            run=self.run or kind.run,
        )

    def _revised(self, each: Input) -> Input:
        changed = self.options.get(each.name)
        return each if changed is None else replace(each, options={**(each.options or {}), **changed})


REVISIONS: Mapping[str, Revision] = {
    "LoadImage": Revision(
        aliases=(
            "load image",
            "open image",
            "import image",
            "image input",
            "upload image",
            "read image",
            "image loader",
        ),
        essentials="Basics",
        run=load.load_image_newer,
    ),
    "LoadImageMask": Revision(
        category="image",
        aliases=("import mask", "alpha mask", "channel mask"),
        essentials="Image Tools",
        run=load.load_image_mask_newer,
    ),
    "EmptyImage": Revision(display_name="Empty Image"),
    "SolidMask": Revision(schema=True, display_name="Create Solid Mask", category="image/mask"),
    "ImageScale": Revision(
        aliases=("resize", "resize image", "scale image", "image resize", "zoom", "zoom in", "change size"),
        essentials="Image Tools",
    ),
    "ImageScaleBy": Revision(essentials="Image Tools"),
    "ImageScaleToTotalPixels": Revision(
        display_name="Scale Image to Total Pixels",
        added=(whole("resolution_steps", 1, 1, 256, None, advanced=True),),
        run=scale.image_scale_to_steps,
    ),
    "ImageScaleToMaxDimension": Revision(schema=True, display_name="Scale Image to Max Dimension"),
    "ImageInvert": Revision(
        display_name="Invert Image Colors",
        category="image/color",
        aliases=("reverse colors",),
        essentials="Image Tools",
    ),
    "ImageCrop": Revision(
        schema=True,
        display_name="Crop Image (DEPRECATED)",
        aliases=("trim",),
        essentials="Image Tools",
        deprecated=True,
    ),
    "ImageFlip": Revision(schema=True, display_name="Flip Image", aliases=("mirror", "reflect")),
    "ImageRotate": Revision(
        schema=True, display_name="Rotate Image", aliases=("turn", "flip orientation"), essentials="Image Tools"
    ),
    "ImageBatch": Revision(
        display_name="Batch Images (DEPRECATED)",
        category="image/batch",
        aliases=("combine images", "merge images", "stack images"),
        deprecated=True,
    ),
    "RepeatImageBatch": Revision(
        schema=True, display_name="Repeat Image Batch", aliases=("duplicate image", "clone image")
    ),
    "ImageFromBatch": Revision(
        schema=True,
        display_name="Get Image from Batch",
        aliases=("select image", "pick from batch", "extract image"),
        options={"batch_index": {"min": -MAX_SIDE, "max": MAX_SIDE}},
    ),
    "RebatchImages": Revision(),
    "ImagePadForOutpaint": Revision(
        category="image/transform",
        aliases=("extend canvas", "expand image"),
        options={"feathering": {"advanced": True}},
    ),
    "ImageBlend": Revision(
        display_name="Blend Images", category="image/filters", aliases=("mix images",), essentials="Image Tools"
    ),
    "ImageBlur": Revision(display_name="Blur Image", category="image/filters"),
    "ImageSharpen": Revision(
        display_name="Sharpen Image",
        category="image/filters",
        options={"sharpen_radius": {"advanced": True}, "sigma": {"advanced": True}, "alpha": {"advanced": True}},
    ),
    "ImageQuantize": Revision(display_name="Quantize Image", category="image/filters"),
    "ImageCompositeMasked": Revision(
        schema=True,
        display_name="Image Composite Masked",
        category="image/compositing",
        aliases=("overlay", "layer", "paste image", "images composition"),
    ),
    "MaskToImage": Revision(schema=True, category="image/mask", aliases=("convert mask",)),
    "ImageToMask": Revision(schema=True, category="image/mask", aliases=("extract channel", "channel to mask")),
    "ImageColorToMask": Revision(
        schema=True,
        display_name="Convert Image Color to Mask",
        category="image/mask",
        aliases=("color keying", "chroma key"),
        options={"color": {"display": "number"}},
    ),
    "InvertMask": Revision(
        schema=True, display_name="Invert Mask", category="image/mask", aliases=("reverse mask", "flip mask")
    ),
    "CropMask": Revision(
        schema=True,
        display_name="Crop Mask",
        category="image/mask",
        aliases=("cut mask", "extract mask region", "mask slice"),
    ),
    "MaskComposite": Revision(
        schema=True,
        display_name="Combine Masks",
        category="image/mask",
        aliases=("combine masks", "blend masks", "layer masks", "masks composition"),
    ),
    "FeatherMask": Revision(
        schema=True,
        display_name="Feather Mask",
        category="image/mask",
        aliases=("soft edge mask", "blur mask edges", "gradient mask edge"),
        run=masks.feather_mask_newer,
    ),
    "GrowMask": Revision(
        schema=True,
        display_name="Grow Mask",
        category="image/mask",
        aliases=("expand mask", "shrink mask"),
        options={"tapered_corners": {"advanced": True}},
    ),
    "ThresholdMask": Revision(
        schema=True, display_name="Threshold Mask", category="image/mask", aliases=("binary mask",)
    ),
    "SplitImageWithAlpha": Revision(
        category="image/compositing", aliases=("extract alpha", "separate transparency", "remove alpha")
    ),
    "JoinImageWithAlpha": Revision(
        category="image/compositing",
        aliases=("add transparency", "apply alpha", "composite alpha", "RGBA"),
        run=masks.join_image_with_alpha_newer,
    ),
    "SaveImage": Revision(
        aliases=("save", "save image", "export image", "output image", "write image", "download"),
        essentials="Basics",
        outputs=("IMAGE",),
        output_names=("images",),
    ),
    "PreviewImage": Revision(
        description="Preview the images without saving them to the ComfyUI output directory.",
        aliases=("preview", "preview image", "show image", "view image", "display image", "image viewer"),
        essentials="Basics",
        outputs=("IMAGE",),
        output_names=("images",),
    ),
    "SaveAnimatedWEBP": Revision(
        schema=True,
        display_name="Save Animated WEBP",
        category="image",
        outputs=("IMAGE",),
        output_names=("images",),
        options={"filename_prefix": {"multiline": False}},
    ),
    "SaveAnimatedPNG": Revision(
        schema=True,
        display_name="Save Animated PNG",
        category="image",
        outputs=("IMAGE",),
        output_names=("images",),
        options={"filename_prefix": {"multiline": False}, "compress_level": {"advanced": True}},
    ),
    "PrimitiveInt": Revision(category="utilities/primitive", options={"value": {"control_after_generate": "fixed"}}),
    "PrimitiveFloat": Revision(category="utilities/primitive", options={"value": {"step": 0.1}}),
    "PrimitiveString": Revision(
        display_name="Text", category="utilities/primitive", aliases=("text", "string", "text box", "prompt")
    ),
    "PrimitiveStringMultiline": Revision(
        display_name="Text (Multiline)",
        category="utilities/primitive",
        aliases=("text", "string", "text multiline", "string multiline", "text box", "prompt"),
        essentials="Basics",
    ),
    "PrimitiveBoolean": Revision(category="utilities/primitive"),
    "PreviewAny": Revision(
        display_name="Preview as Text",
        category="utilities",
        description="Preview any input value as text.",
        aliases=("show output", "inspect", "debug", "print value", "show text"),
        outputs=("STRING",),
        run=primitive.preview_any_newer,
    ),
}
