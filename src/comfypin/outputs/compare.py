"""Compares two outputs as pictures: decoded pixels within a tolerance; other files byte for byte."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.digest import Digest, JsonValue
from comfypin.plurals import format_count

if TYPE_CHECKING:
    import numpy

# As floats a pixel takes 16 bytes.
MAX_PIXELS = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of comparing two outputs: the same or not, and the difference in words; levels are 0 to 255."""

    same: bool
    detail: str
    largest_level: float | None = None
    differing_part: float | None = None

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "same": self.same,
            "detail": self.detail,
            "largest_level": self.largest_level,
            "differing_part": self.differing_part,
        }


def compare_outputs(first_path: Path, second_path: Path, *, tolerance: float) -> Comparison:
    """Compare two files. `tolerance` is the largest difference of a channel, in levels, that still is the same."""
    first_frames, second_frames = _read_frames(first_path), _read_frames(second_path)
    if first_frames is None or second_frames is None:
        is_same = Digest.of_file(first_path) == Digest.of_file(second_path)
        return Comparison(same=is_same, detail="the same bytes" if is_same else "other bytes")
    if len(first_frames) != len(second_frames):
        return Comparison(same=False, detail=f"{format_count(len(first_frames), 'frame')} against {len(second_frames)}")
    largest_level, differing_pixels, total_pixels = 0.0, 0, 0
    for first_frame, second_frame in zip(first_frames, second_frames, strict=True):
        if first_frame.shape != second_frame.shape:
            return Comparison(
                same=False, detail=f"{_describe_shape(first_frame)} against {_describe_shape(second_frame)}"
            )
        distance = abs(first_frame.astype("float32") - second_frame.astype("float32"))
        largest_level = max(largest_level, float(distance.max(initial=0)))
        # One channel beyond the tolerance makes the whole pixel differ.
        differing_mask = (distance > tolerance).any(axis=-1)
        differing_pixels += int(differing_mask.sum())
        total_pixels += differing_mask.size
    differing_part = differing_pixels / total_pixels if total_pixels else 0.0
    detail = (
        f"{differing_part:.2%} of the pixels differ by more than {tolerance:g}, "
        f"at most by {largest_level:g} of 255 levels"
    )
    if not differing_pixels:
        detail = (
            "the same pixels"
            if not largest_level
            else f"the same within the tolerance (at most {largest_level:g} levels)"
        )
    return Comparison(
        same=not differing_pixels, detail=detail, largest_level=largest_level, differing_part=differing_part
    )


def _read_frames(path: Path) -> "list[numpy.ndarray] | None":
    """Return the frames of a picture as RGBA, None if the file is not a picture."""
    # Imported here: only comparing needs them, and they are slow to import.
    import numpy
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as picture:
            # Such pictures are compared byte for byte.
            if picture.width * picture.height > MAX_PIXELS:
                return None
            return [numpy.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _describe_shape(frame: "numpy.ndarray") -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
