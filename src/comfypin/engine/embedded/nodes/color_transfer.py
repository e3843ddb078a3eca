"""ComfyUI 0.33's node that gives pictures the colours of another picture."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray
from comfypin.engine.embedded.declare import (
    NodeClass,
    NodeContext,
    NodeResult,
    choice_input,
    dynamic_choice_input,
    float_input,
    image_input,
    integer_input,
)
from comfypin.engine.embedded.pixels.lab import apply_matrix, lab_to_rgb, rgb_to_lab

# Below this a band counts as flat: dividing by its spread would only amplify noise.
_SMALLEST = 1e-6
_LEVELS = 256

# The mean colour, and the standard deviations or the covariance.
Statistics = tuple[PixelArray, PixelArray]
Transform = Callable[[PixelArray, int], PixelArray]


def color_transfer(
    context: NodeContext,
    *,
    image_target: PixelArray,
    image_ref: PixelArray,
    method: str,
    source_stats: Mapping[str, Any],
    strength: float = 1.0,
) -> NodeResult:
    """Match the colours of each picture to the reference."""
    if strength == 0:
        return (image_target,)
    if method == "histogram":
        transform = _histogram_transform(image_target, image_ref, source_stats)
    else:
        transform = _lab_transform(image_target, image_ref, source_stats, deviations=method == "reinhard_lab")
    result = np.empty_like(image_target)
    for index, picture in enumerate(image_target):
        context.report_progress(index, len(image_target))
        if method == "histogram":
            matched = _interpolate(picture, transform(picture, index), strength)
        else:
            lab = rgb_to_lab(picture)
            matched = lab_to_rgb(_interpolate(lab, transform(lab, index), strength))
        result[index] = np.clip(matched, 0, 1)
    return (result,)


def _interpolate(source: PixelArray, target: PixelArray, strength: float) -> PixelArray:
    """Interpolate as torch does, which counts from the nearer end."""
    if strength == 1:
        return target
    if strength < 0.5:
        return source + np.float32(strength) * (target - source)
    return target - (target - source) * np.float32(1 - strength)


def _baseline_pictures(pictures: PixelArray, source_stats: Mapping[str, Any]) -> PixelArray:
    """Return the pictures that give the colours for all: every one, or the chosen one."""
    if source_stats["source_stats"] != "target_frame":
        return pictures
    index = min(source_stats["target_index"], len(pictures) - 1)
    return pictures[index : index + 1]


def _select_frame(pictures: PixelArray, index: int) -> PixelArray:
    index = min(index, len(pictures) - 1)
    return pictures[index : index + 1]


def _lab_transform(
    target: PixelArray, reference: PixelArray, source_stats: Mapping[str, Any], *, deviations: bool
) -> Transform:
    """Return a function that moves Lab colours to the reference's mean and spread."""

    def compute_statistics(pictures: PixelArray) -> Statistics:
        return _color_statistics(rgb_to_lab(pictures), deviations=deviations)

    def make_transform(source: Statistics, target: Statistics) -> Callable[[PixelArray], PixelArray]:
        if deviations:
            factor = target[1] / source[1]
            return lambda lab: (lab - source[0]) * factor + target[0]
        matrix = _transport_matrix(source[1], target[1])
        return lambda lab: apply_matrix(lab - source[0], matrix) + target[0]

    if source_stats["source_stats"] == "per_frame":
        return lambda lab, index: make_transform(
            _color_statistics(lab, deviations=deviations), compute_statistics(_select_frame(reference, index))
        )(lab)
    fixed = make_transform(compute_statistics(_baseline_pictures(target, source_stats)), compute_statistics(reference))
    return lambda lab, _: fixed(lab)


def _color_statistics(lab: PixelArray, *, deviations: bool) -> Statistics:
    flat = lab.reshape(-1, lab.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    if deviations:
        spread = np.maximum(np.sqrt((centred**2).mean(axis=0)), _SMALLEST)
    else:
        spread = centred.T @ centred / len(flat)
    return mean.astype(np.float32), spread.astype(np.float32)


def _transport_matrix(source: PixelArray, target: PixelArray) -> PixelArray:
    """Return the Monge-Kantorovich matrix from one covariance to another."""
    # https://en.wikipedia.org/wiki/Transportation_theory_(mathematics), for two normal distributions.
    values, vectors = np.linalg.eigh(source)
    roots = np.maximum(np.sqrt(np.maximum(values, 0)), _SMALLEST)
    scaled = vectors * roots
    middle_values, middle_vectors = np.linalg.eigh(scaled.T @ target @ scaled)
    half = (middle_vectors * np.sqrt(np.maximum(middle_values, 0))) @ middle_vectors.T
    inverse = vectors / roots
    matrix: PixelArray = (inverse @ half @ inverse.T).astype(np.float32)
    return matrix


def _histogram_transform(target: PixelArray, reference: PixelArray, source_stats: Mapping[str, Any]) -> Transform:
    """Return a function that gives each level the reference's level of the same share."""

    def apply_table(table: PixelArray, source: PixelArray) -> PixelArray:
        bands = [table[band][_color_levels(source[..., band])] for band in range(source.shape[-1])]
        return np.stack(bands, axis=-1)

    if source_stats["source_stats"] == "per_frame":
        return lambda source, index: apply_table(
            _lookup_table(
                _cumulative_shares(_select_frame(target, index)), _cumulative_shares(_select_frame(reference, index))
            ),
            source,
        )
    fixed = _lookup_table(_cumulative_shares(_baseline_pictures(target, source_stats)), _cumulative_shares(reference))
    return lambda source, _: apply_table(fixed, source)


def _color_levels(values: Any) -> Any:
    return np.clip((values.astype(np.float32) * np.float32(_LEVELS - 1)).astype(np.int64), 0, _LEVELS - 1)


def _cumulative_shares(pictures: PixelArray) -> PixelArray:
    """Return for each band and level the share of pixels that are not lighter."""
    counts = [
        np.bincount(_color_levels(pictures[..., band]).ravel(), minlength=_LEVELS) for band in range(pictures.shape[3])
    ]
    sums = np.cumsum(np.array(counts, np.float32), axis=1, dtype=np.float32)
    return sums / sums[:, -1:]


def _lookup_table(source: PixelArray, target: PixelArray) -> PixelArray:
    places = [np.searchsorted(target[band], source[band]) for band in range(len(source))]
    table: PixelArray = np.minimum(np.array(places), _LEVELS - 1).astype(np.float32) / np.float32(_LEVELS - 1)
    return table


_SOURCES_HELP = (
    "per_frame: each frame matched to image_ref individually. uniform: pool stats across all source frames as "
    "baseline, match to image_ref. target_frame: use one chosen frame as the baseline for the transform to "
    "image_ref, applied uniformly to all frames (preserves relative differences)"
)
_INDEX_HELP = "Frame index used as the source baseline for computing the transform to image_ref"

CLASSES = (
    NodeClass(
        name="ColorTransfer",
        display_name="Transfer Color",
        description="Match the colors of one image to another using various algorithms.",
        category="image/filters",
        module="comfy_extras.nodes_post_processing",
        modern=True,
        aliases=(
            "color match",
            "color grading",
            "color correction",
            "match colors",
            "color transform",
            "mkl",
            "reinhard",
            "histogram",
        ),
        inputs=(
            image_input("image_target", tooltip="Image(s) to apply the color transform to."),
            image_input("image_ref", tooltip="Reference image(s) to match colors to."),
            choice_input("method", "reinhard_lab", "mkl_lab", "histogram"),
            dynamic_choice_input(
                "source_stats",
                {
                    "per_frame": (),
                    "uniform": (),
                    "target_frame": (integer_input("target_index", 0, 0, 10000, None, tooltip=_INDEX_HELP),),
                },
                tooltip=_SOURCES_HELP,
            ),
            float_input("strength", 1.0, 0.0, 10.0, 0.01),
        ),
        outputs=("IMAGE",),
        output_names=("image",),
        run=color_transfer,
    ),
)
