"""Deploy a release on Runpod: `up` from a workflow at once; or a file says what should exist, and `apply` makes it so.

comfypin runpod up WORKFLOW              lock, volume, endpoint and a first picture; again, to change it
comfypin runpod history|rollback|logs|down   of what `up` made

comfypin runpod init                     write a commented runpod.toml
comfypin runpod plan                     show the difference; exit code 2 when there is one
comfypin runpod apply [--wait]           make it so; --wait also runs the smoke job through each endpoint
comfypin runpod status [NAME --watch]    what exists, and whether its workers are ready
comfypin runpod destroy [--volumes]      list what carries this deployment's mark, ask, remove it
comfypin runpod run W --endpoint NAME    send a job, follow it, save its outputs
comfypin runpod hub --image IMAGE        write the files by which a release is published in Runpod's Hub
comfypin runpod volume push|ls|verify|gc fill a network volume with a release, without a pod
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.runpod import fill as runpod_fill
from comfypin.cli.runpod import hub as runpod_hub
from comfypin.cli.runpod import run as runpod_run
from comfypin.cli.runpod import up as runpod_up
from comfypin.cli.runpod import up_status as runpod_up_status
from comfypin.cli.runpod import up_verbs as runpod_up_verbs
from comfypin.cli.runpod import volume as runpod_volume
from comfypin.cli.runpod.consent import require_consent
from comfypin.cli.runpod.job_routes import EndpointRoute
from comfypin.errors import UsageError
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from comfypin.runpod.cost import HourlyCost
    from comfypin.runpod.deployment_file import Deployment
    from comfypin.runpod.deployment_plan import DeploymentStep, LiveResources
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.release_facts import ReleaseFacts

# As `terraform plan -detailed-exitcode`: 2 says that there are changes.
EXIT_DIFFERENT = 2
_VERB_SIGNS = {"create": "+", "change": "~", "replace": "!", "unchanged": "="}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their flags."""
    common_parser = argparse.ArgumentParser(add_help=False)
    common_parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    common_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")
    file_parser = argparse.ArgumentParser(add_help=False, parents=[common_parser])
    file_parser.add_argument("--file", type=Path, default=Path("runpod.toml"), help="the deployment (runpod.toml)")
    file_parser.add_argument("--lock", help="the release's lock, if it is not found by the name in the file")
    action_parsers = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init_parser = action_parsers.add_parser("init", parents=[common_parser], help="write a commented runpod.toml")
    init_parser.add_argument("--file", type=Path, default=Path("runpod.toml"), help="the file to write (runpod.toml)")
    init_parser.add_argument("--release", default="demo", help="the release it deploys (demo)")
    init_parser.add_argument("--image", help="its image, NAME@sha256:..., as `comfypin image push` prints it")
    action_parsers.add_parser("schema", parents=[common_parser], help="print the JSON Schema of runpod.toml")
    plan_parser = action_parsers.add_parser(
        "plan", parents=[file_parser], help="show what apply would do; exit code 2 if it would change anything"
    )
    plan_parser.add_argument("--offline", action="store_true", help="only check the file; send no request to Runpod")
    apply_parser = action_parsers.add_parser(
        "apply", parents=[file_parser], help="create and change resources as the file says"
    )
    apply_parser.add_argument("--wait", action="store_true", help="wait for workers, then run the smoke job")
    apply_parser.add_argument("--timeout", type=float, default=900, metavar="S", help="the time limit of --wait (900)")
    apply_parser.add_argument("--yes", action="store_true", help="replace resources without asking")
    runpod_up_status.configure(
        action_parsers.add_parser("status", parents=[file_parser], help="list what exists, and its workers")
    )
    destroy_parser = action_parsers.add_parser(
        "destroy", parents=[file_parser], help="remove every resource of this deployment"
    )
    destroy_parser.add_argument("--volumes", action="store_true", help="remove its network volumes and their data too")
    destroy_parser.add_argument("--yes", action="store_true", help="do not ask")
    runpod_up.configure(action_parsers.add_parser("up", help="make an endpoint of a workflow, in one command"))
    runpod_up_verbs.configure(action_parsers)
    runpod_fill.configure(action_parsers.add_parser("fill", help="fill a network volume; what the pod of `up` runs"))
    runpod_run.configure(action_parsers.add_parser("run", help="run a workflow on an endpoint and save its outputs"))
    runpod_hub.configure(action_parsers.add_parser("hub", help="write or check the files of a listing in Runpod's Hub"))
    runpod_volume.configure(
        action_parsers.add_parser("volume", help="manage a release's models and env on network volumes")
    )


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the action; returns its exit code."""
    actions = {
        "init": _write_deployment,
        "schema": _print_schema,
        "plan": _show_plan,
        "apply": _apply_plan,
        "status": _show_status,
        "destroy": _destroy_resources,
        "up": runpod_up.execute,
        "fill": runpod_fill.execute,
        **runpod_up_verbs.ACTIONS,
        "run": runpod_run.execute,
        "hub": runpod_hub.execute,
        "volume": runpod_volume.execute,
    }
    return actions[arguments.action](arguments)


def _write_deployment(arguments: argparse.Namespace) -> int:
    from comfypin.atomic_files import write_atomically
    from comfypin.runpod.deployment_template import commented_file

    # The file may have been edited by hand.
    if arguments.file.exists():
        raise UsageError(f"{arguments.file} exists already; remove it, or name another file with --file.")
    write_atomically(arguments.file, commented_file(arguments.release, arguments.image).encode())
    print(json.dumps({"file": str(arguments.file)}) if arguments.json else arguments.file)
    return 0


def _print_schema(_arguments: argparse.Namespace) -> int:
    from comfypin.runpod.deployment_file import deployment_schema

    print(json.dumps(deployment_schema(), indent=2, sort_keys=True))
    return 0


def _show_plan(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.deployment_plan import leftover_resources

    deployment, release = _read_and_check(arguments)
    if arguments.offline:
        _print_result(arguments, {"checked": str(arguments.file)}, f"{arguments.file}: nothing Runpod's rules forbid")
        return 0
    management_api = _open_api(arguments)
    live_state, plan_steps, costs = _survey_and_plan(management_api, deployment, release, path=str(arguments.file))
    left_overs = leftover_resources(deployment.name, plan_steps, live_state)
    if arguments.json:
        document = {
            "steps": [_step_to_json(step) for step in plan_steps],
            "left_over": [
                {"kind": kind, "remote_name": resource["name"], "id": resource["id"]} for kind, resource in left_overs
            ],
            "cost_per_hour": _costs_to_json(costs),
        }
        print(json.dumps(document))
    else:
        lines = [
            f"? {kind} {resource['name']} ({resource['id']}): not in the file any more, left alone"
            for kind, resource in left_overs
        ]
        print("\n".join([*_format_plan(plan_steps), *lines, *_format_costs(costs)]))
    return EXIT_DIFFERENT if any(step.verb != "unchanged" for step in plan_steps) else 0


def _apply_plan(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import apply_plan

    deployment, release = _read_and_check(arguments)
    management_api = _open_api(arguments)
    _live, plan_steps, _costs = _survey_and_plan(management_api, deployment, release, path=str(arguments.file))
    replaced_names = [f"{step.desired.kind} {step.desired.name}" for step in plan_steps if step.verb == "replace"]
    if replaced_names:
        require_consent(f"This deletes and recreates: {', '.join(replaced_names)}.", is_given=arguments.yes)
    variable_names = [
        variable_name for login in deployment.registry for variable_name in (login.username_env, login.password_env)
    ]
    applied_steps = apply_plan(
        management_api,
        plan_steps,
        variables=arguments.settings.pick_variables(variable_names),
        on_step=lambda step, identifier: print_on_stderr(f"{_describe_step(step)} ({identifier})"),
    )
    endpoints = {
        applied_step.step.desired.name: applied_step.identifier
        for applied_step in applied_steps
        if applied_step.step.desired.kind == "endpoint"
    }
    smoke_results = _wait_and_smoke(arguments, management_api, deployment, endpoints) if arguments.wait else {}
    if arguments.json:
        resources = [
            {
                **_step_to_json(applied_step.step),
                "id": applied_step.identifier,
                "smoke": smoke_results.get(applied_step.step.desired.name),
            }
            for applied_step in applied_steps
        ]
        print(json.dumps({"applied": resources}))
    else:
        changed = sum(applied_step.step.verb != "unchanged" for applied_step in applied_steps)
        print(f"{changed} changed, {len(applied_steps) - changed} unchanged")
    return 0


def _wait_and_smoke(
    arguments: argparse.Namespace,
    management_api: "ManagementApi",
    deployment: "Deployment",
    endpoints: Mapping[str, str],
) -> dict[str, str]:
    from comfypin.runpod.apply import wait_for_workers

    smoke_results = {}
    for endpoint_config in deployment.endpoint:
        identifier = endpoints[endpoint_config.name]
        if endpoint_config.workers.min:
            print_on_stderr(
                f"waiting for {format_count(endpoint_config.workers.min, 'worker')} of {endpoint_config.name}"
            )
            wait_for_workers(
                management_api, identifier, wanted_count=endpoint_config.workers.min, timeout_s=arguments.timeout
            )
        print_on_stderr(f"smoke job through {endpoint_config.name}")
        # An empty workflow is a smoke test of the engine.
        job = {"workflow": {}, "output": {"mode": "base64"}}
        route = EndpointRoute.of_live(management_api.get_resource("endpoint", identifier))
        route.run_job(job, arguments.settings, timeout_s=arguments.timeout, on_progress=runpod_run.print_job_progress)
        smoke_results[endpoint_config.name] = "COMPLETED"
    return smoke_results


def _show_status(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.deployment_plan import owned_resources
    from comfypin.runpod.idle_rule import explain_lowered_workers

    if (up_name := runpod_up_status.choose_deployment(arguments)) is not None:
        return runpod_up_status.show_status(arguments, up_name)
    deployment = _read_deployment(arguments)
    management_api = _open_api(arguments)
    resource_rows = []
    # `owned` is in the order of removal; people think the other way round.
    for kind, resource in reversed(owned_resources(deployment.name, survey_account(management_api))):
        resource_row: dict[str, object] = {
            "kind": kind,
            "name": resource["name"],
            "id": resource["id"],
            "image": resource.get("image"),
        }
        variables = resource.get("env")
        if isinstance(variables, Mapping):
            resource_row |= {
                "release": variables.get("COMFY_VERSION_NAME"),
                "lock_digest": variables.get("COMFYPIN_LOCK_DIGEST"),
            }
        if kind == "endpoint":
            workers_response = management_api.send_request("GET", f"/v2/serverless/{resource['id']}/workers")
            resource_row["workers"] = workers_response.get("summary") if isinstance(workers_response, dict) else None
            resource_row["idle"] = explain_lowered_workers(deployment, resource)
        if kind == "pod":
            resource_row["status"] = resource.get("status")
        resource_rows.append(resource_row)
    if arguments.json:
        print(json.dumps({"deployment": deployment.name, "resources": resource_rows}))
    else:
        for resource_row in resource_rows:
            details = [
                str(resource_row.get("release") or ""),
                str(resource_row.get("status") or ""),
                _format_workers(resource_row.get("workers")),
                str(resource_row.get("idle") or ""),
            ]
            identity = f"{resource_row['kind']:<9} {resource_row['name']:<32} {resource_row['id']:<16}"
            print(f"{identity} {' '.join(filter(None, details))}".rstrip())
        if not resource_rows:
            print(f"nothing of {deployment.name!r} exists; `comfypin runpod apply` creates it")
    return 0


def _destroy_resources(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import destroy_resources, survey_account
    from comfypin.runpod.deployment_plan import owned_resources

    deployment = _read_deployment(arguments)
    management_api = _open_api(arguments)
    marked_resources = owned_resources(deployment.name, survey_account(management_api))
    # A volume holds data that takes hours to push again.
    doomed_resources = [(kind, item) for kind, item in marked_resources if arguments.volumes or kind != "volume"]
    kept_names = [str(item["name"]) for kind, item in marked_resources if (kind, item) not in doomed_resources]
    for kind, resource in doomed_resources:
        print_on_stderr(f"- {kind} {resource['name']} ({resource['id']})")
    if doomed_resources:
        require_consent(
            f"This removes {format_count(len(doomed_resources), 'resource')}, for good.", is_given=arguments.yes
        )
    destroy_resources(
        management_api,
        doomed_resources,
        on_removed=lambda kind, resource_name: print_on_stderr(f"removed {kind} {resource_name}"),
    )
    if kept_names:
        print_on_stderr(f"kept, with their data: {', '.join(kept_names)} (--volumes removes them)")
    removed_names = [str(item["name"]) for _, item in doomed_resources]
    _print_result(arguments, {"removed": removed_names, "kept": kept_names}, f"{len(removed_names)} removed")
    return 0


def _read_deployment(arguments: argparse.Namespace) -> "Deployment":
    """Read the file without its lock or rules, so that `status` and `destroy` work even if those are broken."""
    from comfypin.runpod.deployment_file import read_deployment

    return read_deployment(arguments.file).deployment


def _read_and_check(arguments: argparse.Namespace) -> "tuple[Deployment, ReleaseFacts]":
    """Read the file and its release's facts, and check every rule that needs no network."""
    from comfypin.lock.codec import lock_digest, read_lock
    from comfypin.lock.lookup import find_lock
    from comfypin.runpod.deployment_file import read_deployment
    from comfypin.runpod.errors import DeploymentInvalid
    from comfypin.runpod.platform_rules import deployment_findings
    from comfypin.runpod.release_facts import release_facts

    deployment = read_deployment(arguments.file).deployment
    lock = read_lock(find_lock(arguments.lock or deployment.release)).lock
    release = release_facts(lock, lock_digest(lock))
    if findings := deployment_findings(deployment, release):
        raise DeploymentInvalid(path=str(arguments.file), findings=findings)
    return deployment, release


def _survey_and_plan(
    management_api: "ManagementApi", deployment: "Deployment", release: "ReleaseFacts", *, path: str
) -> "tuple[LiveResources, tuple[DeploymentStep, ...], tuple[HourlyCost, ...]]":
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.compute_rules import cpu_findings, gpu_findings
    from comfypin.runpod.cost import hourly_costs
    from comfypin.runpod.deployment_plan import plan_deployment
    from comfypin.runpod.desired_state import desired_state
    from comfypin.runpod.errors import DeploymentInvalid

    live_state, gpu_types = survey_account(management_api), management_api.list_gpus()
    wants_cpus = any(endpoint.cpu for endpoint in deployment.endpoint) or any(pod.cpu for pod in deployment.pod)
    cpu_types = management_api.list_cpus() if wants_cpus else []
    if findings := [*gpu_findings(deployment, release, gpu_types), *cpu_findings(deployment, cpu_types)]:
        raise DeploymentInvalid(path=path, findings=findings)
    return (
        live_state,
        plan_deployment(deployment.name, desired_state(deployment, release), live_state),
        hourly_costs(deployment, gpu_types, cpu_types),
    )


def _open_api(arguments: argparse.Namespace) -> "ManagementApi":
    from comfypin.wiring import open_runpod_api

    return open_runpod_api(arguments.settings)


def _format_plan(plan_steps: "tuple[DeploymentStep, ...]") -> list[str]:
    lines = []
    for plan_step in plan_steps:
        lines.append(f"{_VERB_SIGNS[plan_step.verb]} {_describe_step(plan_step)}")
        lines += [f"      {change.path}: {change.before!r} -> {change.after!r}" for change in plan_step.changes]
    verb_counts = {verb: sum(step.verb == verb for step in plan_steps) for verb in _VERB_SIGNS}
    return [*lines, "", ", ".join(f"{count} to {verb}" for verb, count in verb_counts.items() if verb != "unchanged")]


def _describe_step(plan_step: "DeploymentStep") -> str:
    return f"{plan_step.verb} {plan_step.desired.kind} {plan_step.desired.name}"


def _format_costs(costs: "tuple[HourlyCost, ...]") -> list[str]:
    lines = []
    for hourly_cost in costs:
        if hourly_cost.least is None or hourly_cost.most is None:
            lines.append(f"{hourly_cost.kind} {hourly_cost.name}: no price in the catalog")
        else:
            lines.append(
                f"{hourly_cost.kind} {hourly_cost.name}: ${hourly_cost.least:.2f} to ${hourly_cost.most:.2f} an hour"
            )
    return lines


def _costs_to_json(costs: "tuple[HourlyCost, ...]") -> list[dict[str, object]]:
    return [
        {"kind": hourly_cost.kind, "name": hourly_cost.name, "least": hourly_cost.least, "most": hourly_cost.most}
        for hourly_cost in costs
    ]


def _step_to_json(plan_step: "DeploymentStep") -> dict[str, object]:
    return {
        "action": plan_step.verb,
        "kind": plan_step.desired.kind,
        "name": plan_step.desired.name,
        "remote_name": plan_step.desired.remote_name,
        "changes": [
            {"path": field_change.path, "before": field_change.before, "after": field_change.after}
            for field_change in plan_step.changes
        ],
    }


def _format_workers(summary: object) -> str:
    if not isinstance(summary, Mapping):
        return ""
    return ", ".join(f"{count} {state}" for state, count in summary.items() if count and state != "total")


def _print_result(arguments: argparse.Namespace, document: object, sentence: str) -> None:
    print(json.dumps(document) if arguments.json else sentence)
