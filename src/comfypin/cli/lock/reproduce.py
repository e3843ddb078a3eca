"""`comfypin lock reproduce`: check that a lock gives the same picture twice, or find the pin that changes it."""

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
    from comfypin.lock.bisect_steps import BisectStep
    from comfypin.lock.model import Lock
    from comfypin.outputs.compare import Comparison

# A first realize may fetch gigabytes.
TIMEOUT_S = 6 * 3600.0
EXIT_DIFFERENT = 1
_REPRODUCE = """Realize a lock in two folders, run a workflow on each, and compare the outputs as decoded pixels. Exit
code 1 if they differ. With --against the second folder gets another lock; if the outputs differ, the pins between
the two locks are bisected to find the first one that changes them."""


def configure_reproduce(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock reproduce`."""
    parser.description = _REPRODUCE
    parser.add_argument("--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)")
    parser.add_argument("--workflow", metavar="FILE", type=Path, required=True, help="the workflow, with fixed seeds")
    parser.add_argument("--against", metavar="FILE|NAME", help="the lock of the second run (default: the same)")
    parser.add_argument(
        "--tolerance",
        metavar="LEVELS",
        type=float,
        default=0.0,
        help="the largest difference of a colour value, of 255 (default: 0)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        help="keep the envs and outputs of both runs here (default: a temporary folder)",
    )
    parser.add_argument(
        "--models-dir", metavar="DIR", type=Path, help="the models folder of both runs (default: MODELS_DIR)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")
    parser.set_defaults(act=_reproduce_lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Runs one workflow on several locks, each in a folder below `work`; they share the models."""

    work: Path
    workflow: Path
    models_dir: Path

    def run_workflow(self, lock: "Lock", place_name: str) -> list[dict[str, object]]:
        """Realize the lock in its own folder, run the workflow there, and return the job's outputs."""
        from comfypin.atomic_files import write_atomically
        from comfypin.lock.codec import render_lock

        folder = self.work / place_name
        lock_path = folder / "lock.json"
        # The file is temporary, so a crash may lose it.
        write_atomically(lock_path, render_lock(lock), durable=False)
        models_flags = ["--models-dir", str(self.models_dir)]
        if lock.engine.kind == "comfyui":
            report_progress(f"realizing {lock.version_name} in {folder}")
            self._run_comfypin(["realize", str(lock_path), "--home", str(folder / "home"), *models_flags, "--json"])
        report_progress(f"running {self.workflow} in {folder}")
        home_flags = ["--comfy-home", str(folder / "home")] if lock.engine.kind == "comfyui" else []
        run_command = ["run", "--lock", str(lock_path), "--workflow", str(self.workflow), "--output", "file", "--json"]
        result = self._run_comfypin([*run_command, "--out-dir", str(folder / "out"), *home_flags, *models_flags])
        outputs = result["outputs"]
        assert isinstance(outputs, list)
        return outputs

    def _run_comfypin(self, arguments: list[str]) -> dict[str, object]:
        from comfypin.tools.process import run_program

        # A process of its own: nothing that the other run loaded or cached can make the pictures equal.
        completed = run_program([sys.executable, "-m", "comfypin.cli.main", *arguments], timeout_s=TIMEOUT_S)
        try:
            result_json = json.loads(completed.stdout_text)
        # It was killed before it printed its result.
        except ValueError:
            result_json = {}
        if completed.exit_code or "error" in result_json:
            complaint = result_json.get("error", {}).get("message") or completed.error_summary
            raise TrialFailed(
                command=arguments[0], place=str(self.work), reason=complaint, exit_code=completed.exit_code
            )
        return dict(result_json)


def _reproduce_lock(arguments: argparse.Namespace) -> int:
    from comfypin.lock.bisect_steps import bisect_steps

    if not 0 <= arguments.tolerance <= 255:
        raise UsageError(f"--tolerance {arguments.tolerance:g} is not between 0 and 255.")
    _, reading = read_named_lock(arguments.lock, arguments.settings)
    other_lock = read_named_lock(arguments.against, arguments.settings)[1].lock if arguments.against else reading.lock
    with temp_folder("reproduce") as temp_path:
        trial = Trial(
            work=(arguments.work or Path(temp_path)).absolute(),
            workflow=arguments.workflow.absolute(),
            models_dir=(arguments.models_dir or arguments.settings.machine.models_dir).absolute(),
        )
        first_outputs = trial.run_workflow(reading.lock, "first")
        comparisons = compare_job_outputs(first_outputs, trial.run_workflow(other_lock, "second"), arguments.tolerance)
        differing = [output_name for output_name, comparison in comparisons.items() if not comparison.same]
        culprit = None
        # With one lock there is no pin to blame.
        if differing and arguments.against:
            pin_steps = bisect_steps(reading.lock, other_lock)

            def is_different(step_number: int) -> bool:
                report_progress(f"halving: with {pin_steps[step_number].part} of {other_lock.version_name}")
                step_outputs = trial.run_workflow(pin_steps[step_number].lock, f"step-{step_number}")
                return not all(
                    comparison.same
                    for comparison in compare_job_outputs(first_outputs, step_outputs, arguments.tolerance).values()
                )

            culprit = pin_steps[find_first_different(len(pin_steps), is_different)] if pin_steps else None
    _print_comparison(comparisons, culprit, as_json=arguments.json)
    return EXIT_DIFFERENT if differing else 0


def compare_job_outputs(
    first_outputs: list[dict[str, object]], second_outputs: list[dict[str, object]], tolerance: float
) -> "dict[str, Comparison]":
    """Compare outputs by node and number; an output that only one job has counts as different."""
    from comfypin.outputs.compare import Comparison, compare_outputs

    first_named, second_named = _name_outputs(first_outputs), _name_outputs(second_outputs)
    comparisons: dict[str, Comparison] = {}
    for output_name in dict.fromkeys((*first_named, *second_named)):
        if output_name in first_named and output_name in second_named:
            comparisons[output_name] = compare_outputs(
                first_named[output_name], second_named[output_name], tolerance=tolerance
            )
        else:
            comparisons[output_name] = Comparison(
                same=False, detail=f"only the {'first' if output_name in first_named else 'second'} has it"
            )
    # Two jobs without outputs must not count as the same.
    if not comparisons:
        comparisons["outputs"] = Comparison(same=False, detail="neither job produced an output")
    return comparisons


def _name_outputs(outputs: list[dict[str, object]]) -> dict[str, Path]:
    output_counts: dict[str, int] = {}
    named_outputs: dict[str, Path] = {}
    for output in outputs:
        node = str(output["node"])
        # A node may have several outputs, so its id alone does not name one.
        output_counts[node] = output_counts.get(node, 0) + 1
        named_outputs[f"node {node}, output {output_counts[node]}"] = Path(str(output["uri"]))
    return named_outputs


def find_first_different(count: int, is_different: Callable[[int], bool]) -> int:
    """Return the first of `count` steps that differs, by bisection; the last one is known to differ."""
    # Each step costs a realize and a run, so there should be few.
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if is_different(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _print_comparison(comparisons: "dict[str, Comparison]", culprit: "BisectStep | None", *, as_json: bool) -> None:
    from comfypin.lock.diff import change_lines

    if as_json:
        facts = {
            "same": all(comparison.same for comparison in comparisons.values()),
            "outputs": {output_name: comparison.to_json() for output_name, comparison in comparisons.items()},
            "since": None if culprit is None else culprit.part,
            "changes": [] if culprit is None else [change.to_json() for change in culprit.changes],
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    for output_name, comparison in comparisons.items():
        print(f"{'same   ' if comparison.same else 'differs'}  {output_name}: {comparison.detail}")
    if culprit is not None:
        print(f"since    {culprit.part}:")
        print("\n".join(f"  {line}" for line in change_lines(culprit.changes)))
