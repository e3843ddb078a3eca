"""One table of what differs between ComfyUI's pages: how each one loads a saved file and makes a prompt of it.

Two generations were recorded to the letter: page 1.27.10 (which ComfyUI 0.3.64 brings) and page 1.49.6 (0.33.0), the
latter with the rules that page 1.58.1 does better (docs/workflows.md lists them).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.workflow.object_info import Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRules:
    """Says how one generation of the page reads a file and writes a prompt."""

    name: str
    # Classes that the page renames while loading; later pages leave it to the server.
    renamed_classes: Mapping[str, str] = field(default_factory=dict)
    # The page's own English names of classes, if the server says none or another.
    titles: Mapping[str, str] = field(default_factory=dict)
    # Classes in whose `filename_prefix` the page fills `%...%` texts in.
    expanded_classes: frozenset[str]
    # Whether preview widgets (`audioUI`, `preview`) go out as empty texts.
    sends_previews: bool
    # Whether a node of a missing class goes out with all its stored values, or with the last one.
    sends_all_unknown_values: bool
    # Whether a muted source is as if it were not linked; before, its key was left out, and a muted reroute passed.
    muted_gives_nothing: bool
    # Whether nothing of a muted or bypassed instance's inside goes out; before, its mode was copied inwards.
    inactive_instance_is_empty: bool
    # Whether an instance writes its values into the definition that all its instances share.
    instances_share_values: bool
    # Whether `proxyWidgets` is read, inner ids are made unique, and group nodes become subgraphs.
    promotes_by_entry: bool
    # Whether a subgraph's input linked straight to its output cannot be submitted.
    refuses_straight_links: bool
    # Whether a link from an output that does not exist, or a link that the file does not hold, stops the page.
    refuses_missing_slots: bool
    # Whether `widgets_values` as an object is read by name, for ComfyUI's own classes too.
    reads_dict_values: bool
    # Whether an open input is connected if a row of `links` leads to it.
    connects_by_rows: bool
    # Whether a multiline text's value becomes text if it is something else.
    multiline_is_text: bool
    # Whether the first row of `links` gives a subgraph's output, or the first of its `linkIds`.
    first_row_gives_output: bool


_SAVERS_1_27 = frozenset(
    {
        "SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveWEBM", "SaveAudio", "SaveGLB",
        "CLIPSave", "VAESave", "ModelSave", "LoraSave", "SaveLatent",
    }
)  # fmt: skip

PAGE_1_27 = PageRules(
    name="1.27.10",
    renamed_classes={
        "T2IAdapterLoader": "ControlNetLoader",
        "ConditioningAverage ": "ConditioningAverage",
        "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
    },
    titles={
        "ImageBlend": "Image Blend",
        "ImageBlur": "Image Blur",
        "ImageQuantize": "Image Quantize",
        "ImageScaleToTotalPixels": "Scale Image to Total Pixels",
        "ImageSharpen": "Image Sharpen",
    },
    expanded_classes=_SAVERS_1_27,
    sends_previews=True,
    sends_all_unknown_values=False,
    muted_gives_nothing=False,
    inactive_instance_is_empty=False,
    instances_share_values=True,
    promotes_by_entry=False,
    refuses_straight_links=False,
    refuses_missing_slots=True,
    reads_dict_values=False,
    connects_by_rows=False,
    multiline_is_text=False,
    first_row_gives_output=False,
)

PAGE_1_49 = PageRules(
    name="1.49.6",
    titles={
        "LTXVConcatAVLatent": "LTXVConcatAVLatent",
        "LTXVSeparateAVLatent": "LTXVSeparateAVLatent",
        "ByteDanceSeedreamNodeV2": "ByteDance Seedream 4.5 & 5.0",
        "ByteDance2ReferenceNode": "ByteDance Seedance 2.5 Reference to Video",
        "IdeogramPImage": "Ideogram P-Image",
        "TopazImageEnhance": "Topaz Image Enhance",
    },
    expanded_classes=_SAVERS_1_27
    | {
        "SaveImageAdvanced", "SaveSVGNode", "SaveVideo", "SaveAudioMP3", "SaveAudioOpus", "SaveAudioAdvanced",
        "Save3DAdvanced", "SaveGaussianSplat", "SavePointCloud",
    },
    sends_previews=False,
    sends_all_unknown_values=True,
    muted_gives_nothing=True,
    inactive_instance_is_empty=True,
    instances_share_values=False,
    promotes_by_entry=True,
    refuses_straight_links=True,
    refuses_missing_slots=False,
    reads_dict_values=True,
    connects_by_rows=True,
    multiline_is_text=True,
    first_row_gives_output=True,
)  # fmt: skip

# The last ComfyUI whose page was recorded as 1.27; everything later is nearer to 1.49.
_LAST_1_27 = (0, 3, 64)
# What a class of /object_info says about itself since the newer page, and never said before.
_LATER_KEYS = frozenset({"search_aliases", "essentials_category", "has_intermediate_output", "output_matchtypes"})


def choose_page_rules(catalogue: Catalogue, comfyui_version: str | None = None) -> PageRules:
    """Choose the rules by ComfyUI's own version if it is known, else by the look of the node catalogue."""
    version_match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", comfyui_version or "")
    if version_match is not None:
        version = tuple(int(version_part or 0) for version_part in version_match.groups())
        return PAGE_1_27 if version <= _LAST_1_27 else PAGE_1_49
    # A catalogue kept in a file has no version; one newer class is enough, since old engines have none.
    is_later = any(not _LATER_KEYS.isdisjoint(definition) for definition in catalogue.values())
    return PAGE_1_49 if is_later else PAGE_1_27
