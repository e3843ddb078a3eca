"""Stages models: copies them from a slow volume to a fast local disk, for engines that map files into memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from comfypin.lock.model import ModelPin


def choose_staged(
    models: Sequence[tuple[ModelPin, Path]], *, models_dir: Path, to: Path, budget_bytes: int | None
) -> list[tuple[ModelPin, Path]]:
    """Choose the models to copy to a fast disk, the largest first while they fit, with their paths there as targets.

    Each pin's only source is the file's present path. Files outside `models_dir` are not staged.
    """
    chosen = []
    budget_left = budget_bytes
    for model_pin, target_path in sorted(models, key=lambda model: -(model[0].size_bytes or _size_or_zero(model[1]))):
        size_bytes = model_pin.size_bytes or _size_or_zero(target_path)
        if (
            not target_path.is_relative_to(models_dir)
            or not target_path.exists()
            or (budget_left is not None and size_bytes > budget_left)
        ):
            continue
        budget_left = None if budget_left is None else budget_left - size_bytes
        staged = replace(model_pin, size_bytes=size_bytes, sources=(str(target_path.resolve()),))
        chosen.append((staged, to / target_path.relative_to(models_dir)))
    return chosen


def _size_or_zero(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
