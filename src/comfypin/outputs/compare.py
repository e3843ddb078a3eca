"""Are two outputs the same picture? Decoded pixels within a tolerance; other files byte for byte."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.digest import Digest, JsonValue

if TYPE_CHECKING:
    import numpy

MAX_PIXELS = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two outputs compare: the same or not, and the difference in words; levels are 0 to 255."""

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


def compare(first: Path, second: Path, *, tolerance: float) -> Comparison:
    """Compare two files. `tolerance` is the largest difference of a channel, in levels, that still is the same."""
    ours, theirs = _frames(first), _frames(second)
    if ours is None or theirs is None:
        same = Digest.of_file(first) == Digest.of_file(second)
        return Comparison(same=same, detail="the same bytes" if same else "other bytes")
    if len(ours) != len(theirs):
        return Comparison(same=False, detail=f"{len(ours)} frames against {len(theirs)}")
    largest, differing, total = 0.0, 0, 0
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            return Comparison(same=False, detail=f"{_shape(one)} against {_shape(other)}")
        distance = abs(one.astype("float32") - other.astype("float32"))
        largest = max(largest, float(distance.max(initial=0)))
        over = (distance > tolerance).any(axis=-1)
        differing += int(over.sum())
        total += over.size
    part = differing / total if total else 0.0
    detail = f"{part:.2%} of the pixels differ by more than {tolerance:g}, at most by {largest:g} of 255 levels"
    if not differing:
        detail = "the same pixels" if not largest else f"the same within the tolerance (at most {largest:g} levels)"
    return Comparison(same=not differing, detail=detail, largest_level=largest, differing_part=part)


def _frames(path: Path) -> "list[numpy.ndarray] | None":
    """The frames of a picture as RGBA, None for what is no picture."""
    import numpy
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            return [numpy.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _shape(frame: "numpy.ndarray") -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
