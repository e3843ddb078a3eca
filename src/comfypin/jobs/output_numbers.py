"""Counts the numbers in outputs' names up from job to job, as a ComfyUI that keeps its output folder does. Pure.

Each job's own mark makes the engine count from 1 every time (`comfypin.workflow.filename_mark`), so two jobs of one
client would give it the same name twice. Keys and places keep the engine's number:
a job that is repeated must replace its own.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from comfypin.outputs.interface import Delivery, Output

# `prefix_00001_.png`, `clip_00001.mp4`, `clip_00001-audio.mp4`.
_NUMBERED = re.compile(r"(?P<prefix>.*_)(?P<number>\d{5,9})(?P<end>(?!\d).*)", re.DOTALL)
# Prefixes come from jobs, which may use a new one each time.
_MOST_PREFIXES = 10_000


class OutputNumbers:
    """Remembers the last number of each subfolder and prefix, of those that were used last."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def count_up(self, deliveries: Sequence[Delivery]) -> tuple[Delivery, ...]:
        """Return one job's deliveries with names whose numbers go on from those of the jobs before."""
        last_before = {
            group: self._last.get(group, 0)
            for delivery in deliveries
            if (group := _group_of(delivery.output)) is not None
        }
        return tuple(self._renumbered(delivery, last_before) for delivery in deliveries)

    def _renumbered(self, delivery: Delivery, last_before: dict[tuple[str, str], int]) -> Delivery:
        output, group = delivery.output, _group_of(delivery.output)
        matched = _NUMBERED.fullmatch(output.filename)
        if group is None or matched is None:
            return delivery
        number = last_before[group] + int(matched["number"])
        self._last[group] = max(number, self._last.pop(group, 0))
        if len(self._last) > _MOST_PREFIXES:
            self._last.popitem(last=False)
        return replace(delivery, output=replace(output, filename=f"{matched['prefix']}{number:05}{matched['end']}"))


def _group_of(output: Output) -> tuple[str, str] | None:
    """Return what shares its numbers with the output; None for a name without one, and for previews."""
    matched = None if output.temporary else _NUMBERED.fullmatch(output.filename)
    return None if matched is None else (output.subfolder, matched["prefix"])
