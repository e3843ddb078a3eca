"""Numbers in outputs' names: from 1 in each job, and counted up from job to job for clients that expect it. Pure.

The engine counts on from what is in its output folder, so the same job would have another key each time: keys and
places count from 1 in every job, and a job that is repeated replaces its own. Two jobs of one client would then give it
the same name twice; a ComfyUI that keeps its output folder does not, and for those clients names go on counting.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace

from comfypin.jobs.output_spool import WantedOutput
from comfypin.outputs.interface import Delivery, Output
from comfypin.workflow.graph import NodeId

# `prefix_00001_.png`, `clip_00001.mp4`, `clip_00001-audio.mp4`.
_NUMBERED = re.compile(r"(?P<prefix>.*_)(?P<number>\d{5,9})(?P<end>(?!\d).*)", re.DOTALL)
# What ComfyUI's own nodes write: `prefix_00001_.png` and `prefix_00001.png`.
_COUNTED = re.compile(r"(?P<prefix>.*_)(?P<number>\d{5,9})(?P<end>_?\.[^.]+)", re.DOTALL)
# Prefixes come from jobs, which may use a new one each time.
_MOST_PREFIXES = 10_000


def number_from_one(outputs: Sequence[WantedOutput], counted: Collection[NodeId]) -> list[WantedOutput]:
    """Return one job's outputs; those of `counted` nodes with numbers that begin at 1 for each folder and prefix.

    Nodes that share a prefix get their numbers in the order of `counted`: the engine runs them now in one order, now in
    another, depending on what its cache holds.
    """
    node_order = {node_id: position for position, node_id in enumerate(counted)}
    matches = [_match_counted(output, counted) for output in outputs]
    series: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for output, matched in zip(outputs, matches, strict=True):
        if matched is not None:
            sort_position = (node_order[output.engine_output.node_id], int(matched["number"]))
            series.setdefault((output.subfolder, matched["prefix"]), set()).add(sort_position)
    renumbered = []
    for output, matched in zip(outputs, matches, strict=True):
        if matched is not None:
            sort_position = (node_order[output.engine_output.node_id], int(matched["number"]))
            number = sorted(series[output.subfolder, matched["prefix"]]).index(sort_position) + 1
            output = replace(output, filename=f"{matched['prefix']}{number:05}{matched['end']}")
        renumbered.append(output)
    return renumbered


def _match_counted(output: WantedOutput, counted: Collection[NodeId]) -> re.Match[str] | None:
    engine_output = output.engine_output
    if engine_output.folder != "output" or engine_output.node_id not in counted:
        return None
    return _COUNTED.fullmatch(output.filename)


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
