"""A small node list in the shape of /object_info, with core classes and one of a pack."""

from comfypin.workflow.object_info import Catalogue


def definition(
    required: dict[str, object],
    *,
    output: list[object] | None = None,
    optional: dict[str, object] | None = None,
    output_node: bool = False,
    module: str = "nodes",
) -> dict[str, object]:
    return {
        "input": {"required": required, "optional": optional or {}},
        "input_order": {"required": list(required), "optional": list(optional or {})},
        "output": output or [],
        "output_node": output_node,
        "python_module": module,
    }


SEED = ["INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}]
PREFIX = ["STRING", {"default": "ComfyUI"}]


def options(inputs: dict[str, dict[str, object]], **more: object) -> list[object]:
    """A dropdown whose chosen option brings inputs of its own."""
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": key, "inputs": ins} for key, ins in inputs.items()], **more}]


def growing(kind: str, **template: object) -> list[object]:
    """A list of sockets that grows."""
    return ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"item": [kind, {}]}}, **template}}]


CODEC = options({
    "auto": {},
    "h264": {"required": {"crf": ["INT", {"default": 23, "min": 0, "max": 51}]}},
})  # fmt: skip

CATALOGUE: Catalogue = {
    "EmptyImage": definition(
        {
            "width": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF}],
        },
        output=["IMAGE"],
    ),
    "SolidMask": definition({"value": ["FLOAT", {"min": 0.0, "max": 1.0}]}, output=["MASK"]),
    "SaveImage": definition({"images": ["IMAGE", {}], "filename_prefix": PREFIX}, output_node=True),
    "SaveOptional": definition({"images": ["IMAGE"]}, optional={"filename_prefix": PREFIX}, output_node=True),
    "PreviewImage": definition({"images": ["IMAGE"]}, output_node=True),
    "LoadImage": definition({"image": [["a.png", "b.png"], {"image_upload": True}]}, output=["IMAGE", "MASK"]),
    "VHS_LoadVideo": definition({"video": [[]]}, output=["IMAGE"], module="custom_nodes.ComfyUI-VideoHelperSuite"),
    "CheckpointLoaderSimple": definition(
        {"ckpt_name": [["sd15.safetensors", "xl/base.safetensors"], {}]}, output=["MODEL", "CLIP", "VAE"]
    ),
    "KSampler": definition(
        {
            "model": ["MODEL"],
            "seed": SEED,
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
            "sampler_name": [["euler", "ddim"]],
            "add_noise": ["BOOLEAN", {"default": True}],
            "text": ["STRING", {"multiline": True}],
        },
        output=["LATENT"],
    ),
    "ImageScale": definition(
        {"image": ["IMAGE"], "method": ["COMBO", {"options": ["bilinear", "area"]}]}, output=["IMAGE"]
    ),
    "VAEDecode": definition({"samples": ["LATENT"], "vae": ["VAE"]}, output=["IMAGE"]),
    "AnyToImage": definition({"value": ["*"], "n": ["INT", {"min": 1}]}, output=["*"], module="custom_nodes.pack"),
    "Either": definition({"value": ["IMAGE,MASK"]}, output=["IMAGE"]),
    "Grow": definition({"images": ["COMFY_AUTOGROW_V3", {}]}, output=["IMAGE"]),
    "SaveMovie": definition(
        {
            "images": growing("IMAGE", prefix="image", min=1, max=4),
            "filename_prefix": PREFIX,
            "format": options(
                {
                    "mp4": {
                        "required": {"codec": CODEC, "fps": ["FLOAT,INT", {"widgetType": "FLOAT", "default": 24.0}]}
                    },
                    "webm": {"required": {"codec": options({"auto": {}}), "loop": ["BOOLEAN", {"default": True}]}},
                    "gif": {"required": {"poster": [["a.png"], {"image_upload": True}]}},
                }
            ),
        },
        output_node=True,
        module="comfy_extras.nodes_video",
    ),
    "PrimitiveString": definition({"value": ["STRING", {}]}, output=["STRING"], module="comfy_extras.nodes_primitive"),
    "StringConcatenate": definition(
        {"string_a": ["STRING"], "string_b": ["STRING"], "delimiter": ["STRING", {"default": ""}]}, output=["STRING"]
    ),
}
