"""`comfypin runpod up WORKFLOW`: from a workflow to an endpoint that answers, in one command; again to change it."""

import argparse
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.runpod import up_lock, up_needs, up_place
from comfypin.cli.runpod.consent import require_consent
from comfypin.cli.runpod.variable_flags import plain_variables, secret_wishes
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.cli.runpod.up_lock import UpLock
    from comfypin.cli.runpod.up_place import PlaceNeeds
    from comfypin.lease import Lease
    from comfypin.runpod.deployment_plan import LiveResources
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.release_facts import ReleaseFacts
    from comfypin.runpod.up.choices import Place
    from comfypin.runpod.up.plan import UpFacts, UpPlan
    from comfypin.runpod.up.state import StateFolder, UpRelease, UpState

STATE_FOLDER = Path(".comfypin/up")
EXIT_DIFFERENT = 2
_DESCRIPTION = """Make an endpoint of a workflow: lock it, choose a data centre and a GPU, fill a network volume by a
pod there, make the endpoint, and run the workflow through it. Shows what it will do and asks once. Killed anywhere,
the same command goes on; with a changed workflow it changes only what changed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = _DESCRIPTION
    parser.add_argument("workflow", metavar="WORKFLOW", help="a workflow of any kind (a picture with one too)")
    parser.add_argument("--name", metavar="NAME", help="the deployment's name (default: the workflow's file)")
    up_lock.add_lock_flags(parser)
    place_flags = parser.add_argument_group("where and how")
    place_flags.add_argument("--image", metavar="NAME@sha256:...", help="the worker image (default: comfypin's own)")
    place_flags.add_argument(
        "--gpu", metavar="POOL", action="append", default=[], help="a GPU pool (default: the cheapest that fits)"
    )
    place_flags.add_argument(
        "--data-center", metavar="ID", help="such as EU-RO-1 (default: where the GPU is available)"
    )
    place_flags.add_argument("--volume-gb", type=int, metavar="N", help="the volume's size (default: from the lock)")
    place_flags.add_argument("--max-workers", type=int, default=3, metavar="N", help="workers at once, at most (3)")
    place_flags.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of the workers"
    )
    place_flags.add_argument(
        "--secret",
        metavar="NAME[=SECRET]",
        action="append",
        default=[],
        help="a variable whose value is a secret of Runpod: made from this machine's variable, or one that is there",
    )
    job = parser.add_argument_group("the first job")
    job.add_argument("--input", action="append", default=[], metavar="NODE=FILE", help="a file for a load node")
    job.add_argument("--out-dir", type=Path, default=Path("out"), help="the folder for its outputs (out)")
    job.add_argument("--no-job", action="store_true", help="do not run the workflow through the endpoint")
    job.add_argument("--timeout", type=float, default=3600, metavar="S", help="the time limit of each wait (3600)")
    add_up_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan; exit code 2 if there is anything to do")
    parser.add_argument(
        "--offline", action="store_true", help="with --dry-run: plan without asking Runpod or anybody else"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask; takes only what is unambiguous")


def add_up_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all verbs of `up` have."""
    parser.add_argument(
        "--state-dir", type=Path, default=STATE_FOLDER, metavar="DIR", help="where the history lies (.comfypin/up)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpJob:
    """The job that proves a release: its input, and the file that it came from."""

    content: Mapping[str, object]
    inputs: tuple[object, ...] = ()

    def to_input(self) -> dict[str, object]:
        """Return the job's input as an endpoint takes it."""
        return {"workflow": self.content, **({"inputs": list(self.inputs)} if self.inputs else {})}


def execute(arguments: argparse.Namespace) -> int:
    """Plan, ask, do."""
    from comfypin.client.order_files import inline_input, parse_input_source
    from comfypin.runpod.up.state import StateFolder

    management_api = up_needs.open_api(arguments)
    plain_variables(arguments.env)
    form, content, workflow_bytes = up_lock.read_up_workflow(arguments.workflow)
    deployment_name = _deployment_name(arguments)
    job = UpJob(
        content=content, inputs=tuple(inline_input(parse_input_source(input_text)) for input_text in arguments.input)
    )
    folder = StateFolder(root=arguments.state_dir, name=deployment_name)
    with hold_deployment(folder):
        # Found before a lock is made, which takes minutes.
        findings = up_needs.find_account_needs(arguments, management_api, deployment_name)
        lock = up_needs.tell_together(
            lambda: up_lock.obtain_lock(
                arguments,
                deployment_name,
                (form, content),
                folder,
                may_make=arguments.dry_run or not findings,
            ),
            findings,
            arguments.workflow,
        )
        folder.keep_lock(lock.digest, lock.data)
        state = replace(
            folder.read(),
            lock_request=lock.request,
            lock_answer=lock.digest,
            package_request=lock.package_request,
        )
        # The lock is kept before anything else: a run that is cut off must not resolve it anew.
        folder.write(state)
        image = up_needs.choose_image(arguments, lock.lock, findings)
        release = _wanted_release(arguments, deployment_name, lock, workflow_bytes, image=image)
        wanted_up = WantedUp(lock=lock, release=release, job=job, findings=findings)
        return _plan_and_do(arguments, management_api, wanted_up, state)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedUp:
    """What the command line asks for: the lock, the release without its place and number, and the job.

    `findings` are what only the user can settle.
    """

    lock: "UpLock"
    release: "UpRelease"
    job: UpJob
    findings: list[str]


def _plan_and_do(
    arguments: argparse.Namespace, management_api: "ManagementApi | None", wanted_up: WantedUp, state: "UpState"
) -> int:
    from comfypin.digest import Digest
    from comfypin.lock.carried import carry_lock
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.release_facts import release_facts
    from comfypin.runpod.up.plan import UpFacts, plan_up
    from comfypin.runpod.up.platform_secrets import list_secrets

    lock = wanted_up.lock
    lock_facts = release_facts(lock.lock, Digest.parse(lock.digest))
    wishes = secret_wishes(arguments.secret, state.name)
    live: LiveResources = {} if management_api is None else survey_account(management_api)
    needs = up_place.place_needs(wanted_up.release, lock.lock, lock_facts)
    place, release = _find_place(management_api, wanted_up, needs, live, state)
    facts = UpFacts(
        release_facts=lock_facts,
        carried_lock=carry_lock(lock.data),
        live=live,
        known_secrets=frozenset(list_secrets(management_api)) if wishes and management_api else frozenset(),
        secrets=wishes,
    )
    findings = [*wanted_up.findings, *up_needs.find_lock_needs(release, facts.carried_lock)]
    if management_api is None or findings:
        return _show_partial_plan(arguments, release, facts, state, findings)
    plan = plan_up(state.name, release, facts, state)
    if arguments.no_job:
        plan = replace(plan, smoke=False)
    _refuse_findings(plan, lock_facts)
    return carry_out_and_report(
        arguments, management_api, PlannedUp(plan=plan, facts=facts, state=state, place=place, job=wanted_up.job)
    )


def _find_place(
    management_api: "ManagementApi | None",
    wanted_up: WantedUp,
    needs: "PlaceNeeds",
    live: "LiveResources",
    state: "UpState",
) -> "tuple[Place | None, UpRelease]":
    """Choose the place if Runpod can be asked; else the release has words in its stead. Adds a finding if none fits."""
    from comfypin.runpod.up.errors import NoPlaceAvailable
    from comfypin.runpod.up.numbering import number_release

    if management_api is not None:
        try:
            return up_place.choose_release_place(management_api, wanted_up.release, needs, live, state)
        except NoPlaceAvailable as unavailable:
            wanted_up.findings.append(up_place.place_finding(unavailable))
    return None, number_release(up_place.without_place(wanted_up.release, needs.volume_gb), state)


def _show_partial_plan(
    arguments: argparse.Namespace, release: "UpRelease", facts: "UpFacts", state: "UpState", findings: list[str]
) -> int:
    """Print what can be planned as it is. Raises `UpUndecided` with the findings, if there are any."""
    from comfypin.cli.runpod.up_report import plan_lines, plan_to_json
    from comfypin.runpod.up.errors import UpUndecided
    from comfypin.runpod.up.plan import plan_up

    plan = plan_up(state.name, up_needs.with_some_address(release), facts, state)
    plan = replace(plan, smoke=plan.smoke and not arguments.no_job)
    document = {**plan_to_json(plan), "asked_runpod": bool(facts.live)}
    if arguments.dry_run and not arguments.json:
        print("\n".join([*plan_lines(plan, None), *up_needs.note_unasked(facts)]))
    elif arguments.dry_run and not findings:
        print(json.dumps(document))
    if findings:
        raise UpUndecided(source=arguments.workflow, findings=findings, plan=document if arguments.dry_run else None)
    return EXIT_DIFFERENT


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUp:
    """A plan with what it was made from, and the job that follows it. Without `place` nothing new is chosen."""

    plan: "UpPlan"
    facts: "UpFacts"
    state: "UpState"
    place: "Place | None"
    job: UpJob


def carry_out_and_report(arguments: argparse.Namespace, management_api: "ManagementApi", planned: PlannedUp) -> int:
    """Show the plan, ask, carry it out, run the job, and print what there is now."""
    from comfypin.cli.runpod.up_report import plan_lines, plan_to_json
    from comfypin.runpod.up.carry_out import UpMeans, carry_out_plan
    from comfypin.runpod.up.state import StateFolder

    plan = planned.plan
    if arguments.dry_run:
        print(json.dumps(plan_to_json(plan)) if arguments.json else "\n".join(plan_lines(plan, planned.place)))
        return 0 if plan.is_empty else EXIT_DIFFERENT
    print_on_stderr("\n".join(plan_lines(plan, planned.place)))
    folder = StateFolder(root=arguments.state_dir, name=plan.name)
    if not plan.is_empty:
        require_consent(f"This makes {plan.name} so.", is_given=arguments.yes)
    means = UpMeans(
        management_api=management_api,
        folder=folder,
        report=print_on_stderr,
        secret_values=arguments.settings.pick_variables([secret.variable for secret in plan.secrets]),
        cpu=None if planned.place is None else planned.place.cpu,
        fill_timeout_s=arguments.timeout,
    )
    outcome = carry_out_plan(plan, planned.facts, planned.state, means)
    saved, seconds = _prove(arguments, planned, outcome.endpoint_id, outcome.state, folder)
    _print_outcome(arguments, plan, outcome.endpoint_id, saved, seconds)
    return 0


def hold_deployment(folder: "StateFolder") -> "Lease":
    """Return the lease on a deployment, as a context. Raises `UpBusy`."""
    from comfypin.lease import Holder, try_acquire_lease
    from comfypin.runpod.up.errors import UpBusy

    folder.lease_path.parent.mkdir(parents=True, exist_ok=True)
    lease = try_acquire_lease(folder.lease_path, purpose="comfypin runpod up")
    if isinstance(lease, Holder):
        raise UpBusy(name=folder.name, holder=str(lease))
    return lease


def _deployment_name(arguments: argparse.Namespace) -> str:
    deployment_name = arguments.name or re.sub(
        r"[^A-Za-z0-9._-]+", "-", Path(arguments.workflow).name.partition(".")[0]
    ).strip("-._")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", deployment_name):
        raise UsageError(
            f"{deployment_name[:60]!r} cannot name a deployment; give --name, of letters, digits, '.', '_' and '-'."
        )
    return deployment_name


def _wanted_release(
    arguments: argparse.Namespace, deployment_name: str, lock: "UpLock", workflow: bytes, *, image: str
) -> "UpRelease":
    from comfypin.digest import Digest
    from comfypin.runpod.up.plan import secret_reference
    from comfypin.runpod.up.state import UpRelease

    secrets = {
        wish.variable: secret_reference(wish.secret_name) for wish in secret_wishes(arguments.secret, deployment_name)
    }
    lock_url = arguments.lock_url
    if lock_url is not None and "#sha256=" not in lock_url:
        lock_url = f"{lock_url}#sha256={Digest.of(lock.data).hex}"
    return UpRelease(
        number=0,
        release=lock.lock.version_name,
        lock_digest=lock.digest,
        image=image,
        gpu_pools=tuple(arguments.gpu),
        data_center=arguments.data_center,
        volume_gb=arguments.volume_gb,
        max_workers=arguments.max_workers,
        env={"OUTPUT_MODE": "base64", **plain_variables(arguments.env), **secrets},
        lock_url=lock_url,
        workflow=arguments.workflow,
        workflow_sha256=Digest.of(workflow).hex,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _refuse_findings(plan: "UpPlan", facts: "ReleaseFacts") -> None:
    from comfypin.runpod.errors import DeploymentInvalid
    from comfypin.runpod.platform_rules import deployment_findings

    if findings := deployment_findings(plan.deployment, facts):
        raise DeploymentInvalid(path=f"comfypin runpod up ({plan.name})", findings=findings)


def _prove(
    arguments: argparse.Namespace, planned: PlannedUp, endpoint_id: str, state: "UpState", folder: "StateFolder"
) -> tuple[list[str], dict[str, float]]:
    """Run the workflow through the endpoint; return the outputs that were saved, and the seconds by phase."""
    from comfypin.cli.runpod.up_report import SmokeClock
    from comfypin.client.result_outputs import outputs_of_result
    from comfypin.client.save_outputs import save_outputs
    from comfypin.http.client import HttpClient
    from comfypin.runpod.endpoint_client import run_endpoint_job
    from comfypin.runpod.up.carry_out import note_stage
    from comfypin.wiring import http_transport, open_runpod_jobs_api

    if not planned.plan.smoke:
        return [], {}
    print_on_stderr(f"job through {endpoint_id}")
    clock = SmokeClock()
    output = run_endpoint_job(
        open_runpod_jobs_api(arguments.settings),
        endpoint_id,
        planned.job.to_input(),
        timeout_s=arguments.timeout,
        on_progress=clock.note_status,
    )
    seconds = clock.seconds(output)
    client = HttpClient(transport=http_transport(arguments.settings))
    saved = save_outputs(outputs_of_result(output), arguments.out_dir, client)
    note_stage(state, planned.plan.release, "proven", folder, seconds)
    return [str(item.path or item.uri) for item in saved], seconds


def _print_outcome(
    arguments: argparse.Namespace, plan: "UpPlan", endpoint_id: str, saved: list[str], seconds: Mapping[str, float]
) -> None:
    from comfypin.cli.runpod.up_report import outcome_lines

    url = f"{arguments.settings.runpod.jobs_url}/{endpoint_id}"
    if arguments.json:
        facts = {
            "name": plan.name,
            "release": plan.release.number,
            "lock_digest": plan.release.lock_digest,
            "endpoint_id": endpoint_id,
            "url": url,
            "changed": not plan.is_empty,
            "saved": saved,
            "seconds": dict(seconds),
        }
        print(json.dumps(facts))
    else:
        print("\n".join(outcome_lines(plan, url, saved, seconds)))
