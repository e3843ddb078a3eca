"""`comfypin lock bisect`: find the pin that changed a picture, with the check of `lock reproduce` as its test."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock, report_progress
from comfypin.cli.lock.reproduce import Trial, compare_job_outputs
from comfypin.errors import UsageError
from comfypin.locking.errors import NothingToBisect, TrialFailed
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import RepoUnreachable
from comfypin.tools.git_remote import list_commits_between

if TYPE_CHECKING:
    from comfypin.lock.bisect_steps import BisectStep, TrialResult
    from comfypin.lock.model import Lock

_BISECT = """Find the pin since which a workflow gives another picture. GOOD and BAD are realized and run; if their
outputs differ, the pins between them are halved: ComfyUI, each node, the packages (then each package), each model,
the engine; of a repository then the commits. A mixture that cannot be realized or run is skipped, as git bisect skip
does. Exit code 10 if GOOD and BAD give the same."""

Outputs = list[dict[str, object]]


def configure_bisect(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock bisect`."""
    parser.description = _BISECT
    parser.add_argument("good", metavar="GOOD", help="a lock file, or a release's name: the picture as it was")
    parser.add_argument("bad", metavar="BAD", help="the lock whose picture differs")
    parser.add_argument("--workflow", metavar="FILE", type=Path, required=True, help="the workflow, with fixed seeds")
    parser.add_argument(
        "--tolerance",
        metavar="LEVELS",
        type=float,
        default=0.0,
        help="the largest difference of a colour value, of 255, that counts as the same (default: 0)",
    )
    parser.add_argument(
        "--work", metavar="DIR", type=Path, help="keep the envs and outputs here (default: a temporary folder)"
    )
    parser.add_argument("--models-dir", metavar="DIR", type=Path, help="the models folder (default: MODELS_DIR)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")
    parser.set_defaults(act=_bisect_locks)


@dataclass(slots=True)
class PinSearch:
    """Runs locks between two, and remembers what each gave; `run` realizes a lock in a place and runs the workflow."""

    run: "Callable[[Lock, str], Outputs]"
    good_outputs: Outputs
    tolerance: float
    list_commits: "Callable[[str, str, str], Sequence[str]]" = list_commits_between
    trials: list[dict[str, str]] = field(default_factory=list)

    def find(self, good: "Lock", bad: "Lock") -> "Sequence[BisectStep]":
        """Return the step that changed the outputs; several if trials failed between them."""
        from comfypin.lock.bisect_steps import PACKAGES_PART, bisect_steps, package_steps

        steps = bisect_steps(good, bad)
        culprits = self._halve(steps, "part")
        if len(culprits) != 1:
            return culprits
        index = steps.index(culprits[0])
        before, after = steps[index - 1].lock if index else good, culprits[0].lock
        if culprits[0].part == PACKAGES_PART:
            finer, part_name = package_steps(before, after), "package"
        else:
            finer, part_name = self._commit_steps(before, after), "commit"
        return self._halve(finer, part_name) if finer else culprits

    def _commit_steps(self, before: "Lock", after: "Lock") -> "tuple[BisectStep, ...]":
        from comfypin.lock.bisect_steps import commit_steps, find_commit_range

        commit_range = find_commit_range(before, after)
        if commit_range is None:
            return ()
        try:
            commits = self.list_commits(commit_range.repository, commit_range.before, commit_range.after)
        except RepoUnreachable as failure:
            # The pin is found all the same, and is worth more than an error.
            report_progress(f"its commits are not searched: {failure.message}")
            return ()
        return commit_steps(before, after, commit_range, commits) if len(commits) > 1 else ()

    def _halve(self, steps: "Sequence[BisectStep]", part_name: str) -> "Sequence[BisectStep]":
        from comfypin.lock.bisect_steps import find_culprits

        culprits = find_culprits(len(steps), lambda number: self._try(steps[number], f"{part_name}-{number}"))
        return [steps[number] for number in culprits]

    def _try(self, step: "BisectStep", part_name: str) -> "TrialResult":
        report_progress(f"halving: with {step.part} and what is before it")
        try:
            outputs = self.run(step.lock, part_name)
        except TrialFailed as failure:
            report_progress(f"skipped: {failure.message}")
            self.trials.append({"part": step.part, "result": "failed", "reason": failure.message})
            return "failed"
        comparisons = compare_job_outputs(self.good_outputs, outputs, self.tolerance)
        result: TrialResult = "same" if all(comparison.same for comparison in comparisons.values()) else "different"
        self.trials.append({"part": step.part, "result": result})
        return result


def _bisect_locks(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.tolerance <= 255:
        raise UsageError(f"--tolerance {arguments.tolerance:g} is not between 0 and 255.")
    good = read_named_lock(arguments.good, arguments.settings)[1].lock
    bad = read_named_lock(arguments.bad, arguments.settings)[1].lock
    with temp_folder("bisect") as temp_path:
        trial = Trial(
            work=(arguments.work or Path(temp_path)).absolute(),
            workflow=arguments.workflow.absolute(),
            models_dir=(arguments.models_dir or arguments.settings.machine.models_dir).absolute(),
        )
        good_outputs = trial.run_workflow(good, "good")
        comparisons = compare_job_outputs(good_outputs, trial.run_workflow(bad, "bad"), arguments.tolerance)
        if all(comparison.same for comparison in comparisons.values()):
            raise NothingToBisect(good=good.version_name, bad=bad.version_name)
        search = PinSearch(run=trial.run_workflow, good_outputs=good_outputs, tolerance=arguments.tolerance)
        culprits = search.find(good, bad)
    if arguments.json:
        facts = {
            "outputs": {output_name: comparison.to_json() for output_name, comparison in comparisons.items()},
            "since": [
                {"part": step.part, "changes": [change.to_json() for change in step.changes]} for step in culprits
            ],
            "trials": search.trials,
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0
    for output_name, comparison in comparisons.items():
        print(f"{'same   ' if comparison.same else 'differs'}  {output_name}: {comparison.detail}")
    _print_culprits(culprits)
    return 0


def _print_culprits(culprits: "Sequence[BisectStep]") -> None:
    from comfypin.lock.diff import change_lines

    if not culprits:
        print("since    nothing that a pin shows: the locks pin the same")
    if len(culprits) > 1:
        print(f"since    one of {len(culprits)}; the mixtures between them cannot be run:")
    for step in culprits:
        print(f"{'since   ' if len(culprits) == 1 else '        '} {step.part}:")
        print("\n".join(f"  {line}" for line in change_lines(step.changes)))
