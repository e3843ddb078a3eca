"""ComfyUI 0.33's node that gives pictures the colours of another picture."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from comfypin.engine.embedded.arrays import Pixels
from comfypin.engine.embedded.declare import Call, NodeClass, Result, choice, dynamic_choice, image, number, whole
from comfypin.engine.embedded.pixels.lab import lab_to_rgb, rgb_to_lab, transformed

_SMALLEST = 1e-6
_LEVELS = 256

Statistics = tuple[Pixels, Pixels]
"""The mean colour, and the standard deviations or the covariance."""
Transform = Callable[[Pixels, int], Pixels]


def color_transfer(
    call: Call,
    *,
    image_target: Pixels,
    image_ref: Pixels,
    method: str,
    source_stats: Mapping[str, Any],
    strength: float = 1.0,
) -> Result:
    """Match the colours of each picture to the reference."""
    if strength == 0:
        return (image_target,)
    if method == "histogram":
        transform = _histogram_transform(image_target, image_ref, source_stats)
    else:
        transform = _lab_transform(image_target, image_ref, source_stats, deviations=method == "reinhard_lab")
    result = np.empty_like(image_target)
    for index, picture in enumerate(image_target):
        call.progress(index, len(image_target))
        if method == "histogram":
            matched = _mixed(picture, transform(picture, index), strength)
        else:
            lab = rgb_to_lab(picture)
            matched = lab_to_rgb(_mixed(lab, transform(lab, index), strength))
        result[index] = np.clip(matched, 0, 1)
    return (result,)


def _mixed(old: Pixels, new: Pixels, strength: float) -> Pixels:
    """Return what lies between, in torch's way, which counts from the nearer end."""
    if strength == 1:
        return new
    if strength < 0.5:
        return old + np.float32(strength) * (new - old)
    return new - (new - old) * np.float32(1 - strength)


def _baseline(pictures: Pixels, asked: Mapping[str, Any]) -> Pixels:
    """Return the pictures whose colours stand for all: all of them, or the one that is asked for."""
    if asked["source_stats"] != "target_frame":
        return pictures
    index = min(asked["target_index"], len(pictures) - 1)
    return pictures[index : index + 1]


def _frame(pictures: Pixels, index: int) -> Pixels:
    index = min(index, len(pictures) - 1)
    return pictures[index : index + 1]


def _lab_transform(target: Pixels, reference: Pixels, asked: Mapping[str, Any], *, deviations: bool) -> Transform:
    def statistics(pictures: Pixels) -> Statistics:
        return _statistics(rgb_to_lab(pictures), deviations=deviations)

    def between(source: Statistics, wanted: Statistics) -> Callable[[Pixels], Pixels]:
        if deviations:
            factor = wanted[1] / source[1]
            return lambda lab: (lab - source[0]) * factor + wanted[0]
        matrix = _transport(source[1], wanted[1])
        return lambda lab: transformed(lab - source[0], matrix) + wanted[0]

    if asked["source_stats"] == "per_frame":
        return lambda lab, index: between(
            _statistics(lab, deviations=deviations), statistics(_frame(reference, index))
        )(lab)
    fixed = between(statistics(_baseline(target, asked)), statistics(reference))
    return lambda lab, _: fixed(lab)


def _statistics(lab: Pixels, *, deviations: bool) -> Statistics:
    flat = lab.reshape(-1, lab.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    if deviations:
        spread = np.maximum(np.sqrt((centred**2).mean(axis=0)), _SMALLEST)
    else:
        spread = centred.T @ centred / len(flat)
    return mean.astype(np.float32), spread.astype(np.float32)


def _transport(source: Pixels, wanted: Pixels) -> Pixels:
    """Return the Monge-Kantorovich matrix from one covariance to another."""
    values, vectors = np.linalg.eigh(source)
    roots = np.maximum(np.sqrt(np.maximum(values, 0)), _SMALLEST)
    scaled = vectors * roots
    middle_values, middle_vectors = np.linalg.eigh(scaled.T @ wanted @ scaled)
    half = (middle_vectors * np.sqrt(np.maximum(middle_values, 0))) @ middle_vectors.T
    inverse = vectors / roots
    matrix: Pixels = (inverse @ half @ inverse.T).astype(np.float32)
    return matrix


def _histogram_transform(target: Pixels, reference: Pixels, asked: Mapping[str, Any]) -> Transform:
    def through(table: Pixels, source: Pixels) -> Pixels:
        bands = [table[band][_levels(source[..., band])] for band in range(source.shape[-1])]
        return np.stack(bands, axis=-1)

    if asked["source_stats"] == "per_frame":
        return lambda source, index: through(
            _table(_shares(_frame(target, index)), _shares(_frame(reference, index))), source
        )
    fixed = _table(_shares(_baseline(target, asked)), _shares(reference))
    return lambda source, _: through(fixed, source)


def _levels(values: Any) -> Any:
    return np.clip((values.astype(np.float32) * np.float32(_LEVELS - 1)).astype(np.int64), 0, _LEVELS - 1)


def _shares(pictures: Pixels) -> Pixels:
    """Return for each band and level the share of pixels that are not lighter."""
    counts = [np.bincount(_levels(pictures[..., band]).ravel(), minlength=_LEVELS) for band in range(pictures.shape[3])]
    sums = np.cumsum(np.array(counts, np.float32), axis=1, dtype=np.float32)
    return sums / sums[:, -1:]


def _table(source: Pixels, wanted: Pixels) -> Pixels:
    places = [np.searchsorted(wanted[band], source[band]) for band in range(len(source))]
    table: Pixels = np.minimum(np.array(places), _LEVELS - 1).astype(np.float32) / np.float32(_LEVELS - 1)
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
            image("image_target", tooltip="Image(s) to apply the color transform to."),
            image("image_ref", tooltip="Reference image(s) to match colors to."),
            choice("method", "reinhard_lab", "mkl_lab", "histogram"),
            dynamic_choice(
                "source_stats",
                {
                    "per_frame": (),
                    "uniform": (),
                    "target_frame": (whole("target_index", 0, 0, 10000, None, tooltip=_INDEX_HELP),),
                },
                tooltip=_SOURCES_HELP,
            ),
            number("strength", 1.0, 0.0, 10.0, 0.01),
        ),
        outputs=("IMAGE",),
        output_names=("image",),
        run=color_transfer,
    ),
)
