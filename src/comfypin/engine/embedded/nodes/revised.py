"""Lists what ComfyUI 0.33 changed in the classes of 0.3.64."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import MAX_SIDE, NodeClass, NodeInput, NodeResult, integer_input
from comfypin.engine.embedded.nodes import load, masks, primitive, scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRevision:
    """Lists the changes of one class; None and empty values leave it as it is."""

    # ComfyUI now declares the class by its newer schema.
    schema: bool = False
    display_name: str | None = None
    category: str | None = None
    description: str | None = None
    aliases: tuple[str, ...] | None = None
    essentials: str | None = None
    deprecated: bool = False
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    # New or changed options, by input.
    options: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    added: tuple[NodeInput, ...] = ()
    run: Callable[..., NodeResult] | None = None

    def apply_to(self, node_class: NodeClass) -> NodeClass:
        """Return the class as the newer release has it."""
        return replace(
            node_class,
            modern=node_class.modern or self.schema,
            display_name=self.display_name or node_class.display_name,
            category=self.category or node_class.category,
            description=self.description or node_class.description,
            # These always take the newer value, because 0.3.64 has no aliases and essentials.
            aliases=self.aliases,
            essentials=self.essentials,
            deprecated=self.deprecated,
            outputs=self.outputs or node_class.outputs,
            output_names=self.output_names or node_class.output_names,
            inputs=(*(self._revise_input(node_input) for node_input in node_class.inputs), *self.added),
            run=self.run or node_class.run,
        )

    def _revise_input(self, node_input: NodeInput) -> NodeInput:
        changed = self.options.get(node_input.name)
        return node_input if changed is None else replace(node_input, options={**(node_input.options or {}), **changed})


REVISIONS: Mapping[str, ClassRevision] = {
    "LoadImage": ClassRevision(
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
    "LoadImageMask": ClassRevision(
        category="image",
        aliases=("import mask", "alpha mask", "channel mask"),
        essentials="Image Tools",
        run=load.load_image_mask_newer,
    ),
    "EmptyImage": ClassRevision(display_name="Empty Image"),
    "SolidMask": ClassRevision(schema=True, display_name="Create Solid Mask", category="image/mask"),
    "ImageScale": ClassRevision(
        aliases=("resize", "resize image", "scale image", "image resize", "zoom", "zoom in", "change size"),
        essentials="Image Tools",
    ),
    "ImageScaleBy": ClassRevision(essentials="Image Tools"),
    "ImageScaleToTotalPixels": ClassRevision(
        display_name="Scale Image to Total Pixels",
        added=(integer_input("resolution_steps", 1, 1, 256, None, advanced=True),),
        run=scale.image_scale_to_steps,
    ),
    "ImageScaleToMaxDimension": ClassRevision(schema=True, display_name="Scale Image to Max Dimension"),
    "ImageInvert": ClassRevision(
        display_name="Invert Image Colors",
        category="image/color",
        aliases=("reverse colors",),
        essentials="Image Tools",
    ),
    "ImageCrop": ClassRevision(
        schema=True,
        display_name="Crop Image (DEPRECATED)",
        aliases=("trim",),
        essentials="Image Tools",
        deprecated=True,
    ),
    "ImageFlip": ClassRevision(schema=True, display_name="Flip Image", aliases=("mirror", "reflect")),
    "ImageRotate": ClassRevision(
        schema=True, display_name="Rotate Image", aliases=("turn", "flip orientation"), essentials="Image Tools"
    ),
    "ImageBatch": ClassRevision(
        display_name="Batch Images (DEPRECATED)",
        category="image/batch",
        aliases=("combine images", "merge images", "stack images"),
        deprecated=True,
    ),
    "RepeatImageBatch": ClassRevision(
        schema=True, display_name="Repeat Image Batch", aliases=("duplicate image", "clone image")
    ),
    "ImageFromBatch": ClassRevision(
        schema=True,
        display_name="Get Image from Batch",
        aliases=("select image", "pick from batch", "extract image"),
        options={"batch_index": {"min": -MAX_SIDE, "max": MAX_SIDE}},
    ),
    "RebatchImages": ClassRevision(),
    "ImagePadForOutpaint": ClassRevision(
        category="image/transform",
        aliases=("extend canvas", "expand image"),
        options={"feathering": {"advanced": True}},
    ),
    "ImageBlend": ClassRevision(
        display_name="Blend Images", category="image/filters", aliases=("mix images",), essentials="Image Tools"
    ),
    "ImageBlur": ClassRevision(display_name="Blur Image", category="image/filters"),
    "ImageSharpen": ClassRevision(
        display_name="Sharpen Image",
        category="image/filters",
        options={"sharpen_radius": {"advanced": True}, "sigma": {"advanced": True}, "alpha": {"advanced": True}},
    ),
    "ImageQuantize": ClassRevision(display_name="Quantize Image", category="image/filters"),
    "ImageCompositeMasked": ClassRevision(
        schema=True,
        display_name="Image Composite Masked",
        category="image/compositing",
        aliases=("overlay", "layer", "paste image", "images composition"),
    ),
    "MaskToImage": ClassRevision(schema=True, category="image/mask", aliases=("convert mask",)),
    "ImageToMask": ClassRevision(schema=True, category="image/mask", aliases=("extract channel", "channel to mask")),
    "ImageColorToMask": ClassRevision(
        schema=True,
        display_name="Convert Image Color to Mask",
        category="image/mask",
        aliases=("color keying", "chroma key"),
        options={"color": {"display": "number"}},
    ),
    "InvertMask": ClassRevision(
        schema=True, display_name="Invert Mask", category="image/mask", aliases=("reverse mask", "flip mask")
    ),
    "CropMask": ClassRevision(
        schema=True,
        display_name="Crop Mask",
        category="image/mask",
        aliases=("cut mask", "extract mask region", "mask slice"),
    ),
    "MaskComposite": ClassRevision(
        schema=True,
        display_name="Combine Masks",
        category="image/mask",
        aliases=("combine masks", "blend masks", "layer masks", "masks composition"),
    ),
    "FeatherMask": ClassRevision(
        schema=True,
        display_name="Feather Mask",
        category="image/mask",
        aliases=("soft edge mask", "blur mask edges", "gradient mask edge"),
        run=masks.feather_mask_newer,
    ),
    "GrowMask": ClassRevision(
        schema=True,
        display_name="Grow Mask",
        category="image/mask",
        aliases=("expand mask", "shrink mask"),
        options={"tapered_corners": {"advanced": True}},
    ),
    "ThresholdMask": ClassRevision(
        schema=True, display_name="Threshold Mask", category="image/mask", aliases=("binary mask",)
    ),
    "SplitImageWithAlpha": ClassRevision(
        category="image/compositing", aliases=("extract alpha", "separate transparency", "remove alpha")
    ),
    "JoinImageWithAlpha": ClassRevision(
        category="image/compositing",
        aliases=("add transparency", "apply alpha", "composite alpha", "RGBA"),
        run=masks.join_image_with_alpha_newer,
    ),
    "SaveImage": ClassRevision(
        aliases=("save", "save image", "export image", "output image", "write image", "download"),
        essentials="Basics",
        outputs=("IMAGE",),
        output_names=("images",),
    ),
    "PreviewImage": ClassRevision(
        description="Preview the images without saving them to the ComfyUI output directory.",
        aliases=("preview", "preview image", "show image", "view image", "display image", "image viewer"),
        essentials="Basics",
        outputs=("IMAGE",),
        output_names=("images",),
    ),
    "SaveAnimatedWEBP": ClassRevision(
        schema=True,
        display_name="Save Animated WEBP",
        category="image",
        outputs=("IMAGE",),
        output_names=("images",),
        options={"filename_prefix": {"multiline": False}},
    ),
    "SaveAnimatedPNG": ClassRevision(
        schema=True,
        display_name="Save Animated PNG",
        category="image",
        outputs=("IMAGE",),
        output_names=("images",),
        options={"filename_prefix": {"multiline": False}, "compress_level": {"advanced": True}},
    ),
    "PrimitiveInt": ClassRevision(
        category="utilities/primitive", options={"value": {"control_after_generate": "fixed"}}
    ),
    "PrimitiveFloat": ClassRevision(category="utilities/primitive", options={"value": {"step": 0.1}}),
    "PrimitiveString": ClassRevision(
        display_name="Text", category="utilities/primitive", aliases=("text", "string", "text box", "prompt")
    ),
    "PrimitiveStringMultiline": ClassRevision(
        display_name="Text (Multiline)",
        category="utilities/primitive",
        aliases=("text", "string", "text multiline", "string multiline", "text box", "prompt"),
        essentials="Basics",
    ),
    "PrimitiveBoolean": ClassRevision(category="utilities/primitive"),
    "PreviewAny": ClassRevision(
        display_name="Preview as Text",
        category="utilities",
        description="Preview any input value as text.",
        aliases=("show output", "inspect", "debug", "print value", "show text"),
        outputs=("STRING",),
        run=primitive.preview_any_newer,
    ),
}
