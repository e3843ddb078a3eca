"""`comfypin lock reproduce`: does a lock give the same picture twice, and if another lock does not, since which pin."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock, report_progress
from comfypin.errors import UsageError
from comfypin.locking.errors import TrialFailed
from comfypin.temp_folders import temp_folder

if TYPE_CHECKING:
    from comfypin.lock.bisect_steps import Step
    from comfypin.lock.model import Lock
    from comfypin.outputs.compare import Comparison

TIMEOUT_S = 6 * 3600.0
DIFFERS = 1
_REPRODUCE = """Realize a lock in two places, run a workflow on each, and compare the outputs as decoded pixels. Exit
code 1 when they differ. With --against the second place gets another lock; where the outputs differ, the pins between
the two locks are halved until the one is found since which they do."""


def configure_reproduce(parser: argparse.ArgumentParser) -> None:
    """The flags of `lock reproduce`."""
    parser.description = _REPRODUCE
    parser.add_argument("--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)")
    parser.add_argument("--workflow", metavar="FILE", type=Path, required=True, help="the workflow, with fixed seeds")
    parser.add_argument("--against", metavar="FILE|NAME", help="the lock of the second place (default: the same)")
    parser.add_argument("--tolerance", metavar="LEVELS", type=float, default=0.0, help="of 0 to 255 (default: 0)")
    parser.add_argument("--work", metavar="DIR", type=Path, help="keep both places here (default: a temporary folder)")
    parser.add_argument("--models-dir", metavar="DIR", type=Path, help="models of both places (default: MODELS_DIR)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="say more about failures")
    parser.set_defaults(act=_reproduce)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Where things are tried: a folder for places, the workflow, and the models that all places share."""

    work: Path
    workflow: Path
    models_dir: Path

    def outputs(self, lock: "Lock", place: str) -> list[dict[str, object]]:
        """Realize a lock in a place of its own, run the workflow there, and give the outputs of the job."""
        from comfypin.atomic_files import write_atomically
        from comfypin.lock.codec import render

        folder = self.work / place
        path = folder / "lock.json"
        write_atomically(path, render(lock), durable=False)
        models = ["--models-dir", str(self.models_dir)]
        if lock.engine.kind == "comfyui":
            report_progress(f"realizing {lock.version_name} in {folder}")
            self._comfypin(["realize", str(path), "--home", str(folder / "home"), *models, "--json"])
        report_progress(f"running {self.workflow} in {folder}")
        home = ["--comfy-home", str(folder / "home")] if lock.engine.kind == "comfyui" else []
        run = ["run", "--lock", str(path), "--workflow", str(self.workflow), "--output", "file", "--json"]
        result = self._comfypin([*run, "--out-dir", str(folder / "out"), *home, *models])
        outputs = result["outputs"]
        assert isinstance(outputs, list)
        return outputs

    def _comfypin(self, arguments: list[str]) -> dict[str, object]:
        from comfypin.tools.process import run

        done = run([sys.executable, "-m", "comfypin.cli.main", *arguments], timeout_s=TIMEOUT_S)
        try:
            answer = json.loads(done.text)
        except ValueError:
            answer = {}
        if done.exit_code or "error" in answer:
            said = answer.get("error", {}).get("message") or done.complaint
            raise TrialFailed(command=arguments[0], place=str(self.work), reason=said, exit_code=done.exit_code)
        return dict(answer)


def _reproduce(arguments: argparse.Namespace) -> int:
    from comfypin.lock.bisect_steps import steps

    if not 0 <= arguments.tolerance <= 255:
        raise UsageError(f"--tolerance {arguments.tolerance:g} is not between 0 and 255.")
    _, reading = read_named_lock(arguments.lock, arguments.settings)
    other = read_named_lock(arguments.against, arguments.settings)[1].lock if arguments.against else reading.lock
    with temp_folder("reproduce") as scratch:
        trial = Trial(
            work=(arguments.work or Path(scratch)).absolute(),
            workflow=arguments.workflow.absolute(),
            models_dir=(arguments.models_dir or arguments.settings.machine.models_dir).absolute(),
        )
        first = trial.outputs(reading.lock, "first")
        found = _compare(first, trial.outputs(other, "second"), arguments.tolerance)
        differ = [name for name, comparison in found.items() if not comparison.same]
        culprit = None
        if differ and arguments.against:
            way = steps(reading.lock, other)

            def differs(number: int) -> bool:
                report_progress(f"halving: with {way[number].part} of {other.version_name}")
                again = trial.outputs(way[number].lock, f"step-{number}")
                return not all(item.same for item in _compare(first, again, arguments.tolerance).values())

            culprit = way[first_that(len(way), differs)] if way else None
    _say(found, culprit, as_json=arguments.json)
    return DIFFERS if differ else 0


def _compare(
    first: list[dict[str, object]], second: list[dict[str, object]], tolerance: float
) -> "dict[str, Comparison]":
    """Outputs by node and place in its list; one that only one job has differs."""
    from comfypin.outputs.compare import Comparison, compare

    ours, theirs = _by_name(first), _by_name(second)
    found: dict[str, Comparison] = {}
    for name in dict.fromkeys((*ours, *theirs)):
        if name in ours and name in theirs:
            found[name] = compare(ours[name], theirs[name], tolerance=tolerance)
        else:
            found[name] = Comparison(same=False, detail=f"only the {'first' if name in ours else 'second'} has it")
    if not found:
        found["outputs"] = Comparison(same=False, detail="neither job produced an output")
    return found


def _by_name(outputs: list[dict[str, object]]) -> dict[str, Path]:
    counts: dict[str, int] = {}
    named: dict[str, Path] = {}
    for output in outputs:
        node = str(output["node"])
        counts[node] = counts.get(node, 0) + 1
        named[f"node {node}, output {counts[node]}"] = Path(str(output["uri"]))
    return named


def first_that(count: int, differs: Callable[[int], bool]) -> int:
    """The first of `count` steps that differs, found by halving; the last one is known to."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if differs(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _say(found: "dict[str, Comparison]", culprit: "Step | None", *, as_json: bool) -> None:
    from comfypin.lock.diff import lines

    if as_json:
        facts = {
            "same": all(comparison.same for comparison in found.values()),
            "outputs": {name: comparison.to_json() for name, comparison in found.items()},
            "since": None if culprit is None else culprit.part,
            "changes": [] if culprit is None else [change.to_json() for change in culprit.changes],
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    for name, comparison in found.items():
        print(f"{'same   ' if comparison.same else 'differs'}  {name}: {comparison.detail}")
    if culprit is not None:
        print(f"since    {culprit.part}:")
        print("\n".join(f"  {line}" for line in lines(culprit.changes)))
