"""Staging: models copied from a slow volume to a fast local disk, for engines that map files into memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from comfypin.lock.model import ModelPin


def stageable(
    models: Sequence[tuple[ModelPin, Path]], *, models_dir: Path, to: Path, budget_bytes: int | None
) -> list[tuple[ModelPin, Path]]:
    """The models to copy to a fast disk, the largest first while they fit, with their paths there as targets.

    Each pin's only source is the file where it lies now. Files outside `models_dir` are not staged.
    """
    chosen = []
    left = budget_bytes
    for pin, path in sorted(models, key=lambda model: -(model[0].size_bytes or _size(model[1]))):
        size = pin.size_bytes or _size(path)
        if not path.is_relative_to(models_dir) or not path.exists() or (left is not None and size > left):
            continue
        left = None if left is None else left - size
        staged = replace(pin, size_bytes=size, sources=(str(path.resolve()),))
        chosen.append((staged, to / path.relative_to(models_dir)))
    return chosen


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
