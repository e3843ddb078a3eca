"""Put a release on RunPod: one file says what should exist, `plan` says what would be done, `apply` does it.

comfypin runpod init                     write a commented runpod.toml
comfypin runpod plan                     show the difference; exit code 2 when there is one
comfypin runpod apply [--wait]           make it so; --wait also runs the smoke job through each endpoint
comfypin runpod status                   what exists, and whether its workers are ready
comfypin runpod destroy [--volumes]      list what carries this deployment's mark, ask, remove it
comfypin runpod run W --endpoint NAME    send a job, follow it, save its outputs
comfypin runpod volume push|ls|verify|gc fill a network volume with a release, without a pod
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.runpod import run as runpod_run
from comfypin.cli.runpod import volume as runpod_volume
from comfypin.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from comfypin.runpod.cost import HourlyCost
    from comfypin.runpod.deployment_file import Deployment
    from comfypin.runpod.deployment_plan import Live, Step
    from comfypin.runpod.management_api import Api
    from comfypin.runpod.release_facts import ReleaseFacts

DIFFERENT = 2
_SIGNS = {"create": "+", "change": "~", "replace": "!", "unchanged": "="}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their flags."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    common.add_argument("--verbose", action="store_true", help="say more, with tracebacks")
    with_file = argparse.ArgumentParser(add_help=False, parents=[common])
    with_file.add_argument("--file", type=Path, default=Path("runpod.toml"), help="the deployment (runpod.toml)")
    with_file.add_argument("--lock", help="the release's lock, when it is not found by the name in the file")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", parents=[common], help="write a commented runpod.toml")
    init.add_argument("--file", type=Path, default=Path("runpod.toml"), help="where to write it (runpod.toml)")
    init.add_argument("--release", default="demo", help="the release it deploys (demo)")
    init.add_argument("--image", help="its image, NAME@sha256:..., as `comfypin image push` prints it")
    actions.add_parser("schema", parents=[common], help="print the JSON Schema of runpod.toml")
    plan = actions.add_parser("plan", parents=[with_file], help="show what apply would do; exit code 2 if anything")
    plan.add_argument("--offline", action="store_true", help="only check the file, ask RunPod nothing")
    apply = actions.add_parser("apply", parents=[with_file], help="make it so")
    apply.add_argument("--wait", action="store_true", help="wait for workers, then run the smoke job")
    apply.add_argument("--timeout", type=float, default=900, metavar="S", help="how long --wait waits (900)")
    apply.add_argument("--yes", action="store_true", help="replace resources without asking")
    actions.add_parser("status", parents=[with_file], help="what exists, and its workers")
    destroy = actions.add_parser("destroy", parents=[with_file], help="remove what carries this deployment's mark")
    destroy.add_argument("--volumes", action="store_true", help="remove its network volumes and their data too")
    destroy.add_argument("--yes", action="store_true", help="do not ask")
    runpod_run.configure(actions.add_parser("run", help="run a workflow on an endpoint and save its outputs"))
    runpod_volume.configure(actions.add_parser("volume", help="a release's models and env on network volumes"))


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the action; returns its exit code."""
    actions = {
        "init": _init,
        "schema": _schema,
        "plan": _plan,
        "apply": _apply,
        "status": _status,
        "destroy": _destroy,
        "run": runpod_run.execute,
        "volume": runpod_volume.execute,
    }
    return actions[arguments.action](arguments)


def _init(arguments: argparse.Namespace) -> int:
    from comfypin.atomic_files import write_atomically
    from comfypin.runpod.deployment_template import commented_file

    if arguments.file.exists():
        raise UsageError(f"{arguments.file} exists; remove it first, or name another with --file.")
    write_atomically(arguments.file, commented_file(arguments.release, arguments.image).encode())
    print(json.dumps({"file": str(arguments.file)}) if arguments.json else arguments.file)
    return 0


def _schema(_arguments: argparse.Namespace) -> int:
    from comfypin.runpod.deployment_file import deployment_schema

    print(json.dumps(deployment_schema(), indent=2, sort_keys=True))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.deployment_plan import left_over

    deployment, release = _read(arguments)
    if arguments.offline:
        _say(arguments, {"checked": str(arguments.file)}, f"{arguments.file}: nothing RunPod's rules forbid")
        return 0
    api = _api(arguments)
    live, steps, costs = _survey_and_plan(api, deployment, release)
    spare = left_over(deployment.name, steps, live)
    if arguments.json:
        document = {
            "steps": [_step_to_json(step) for step in steps],
            "left_over": [{"kind": kind, "remote_name": item["name"], "id": item["id"]} for kind, item in spare],
            "cost_per_hour": _costs_to_json(costs),
        }
        print(json.dumps(document))
    else:
        lines = [
            f"? {kind} {item['name']} ({item['id']}): not in the file any more, left alone" for kind, item in spare
        ]
        print("\n".join([*_plan_lines(steps), *lines, *_cost_lines(costs)]))
    return DIFFERENT if any(step.verb != "unchanged" for step in steps) else 0


def _apply(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import apply

    deployment, release = _read(arguments)
    api = _api(arguments)
    _live, steps, _costs = _survey_and_plan(api, deployment, release)
    replaced = [f"{step.desired.kind} {step.desired.name}" for step in steps if step.verb == "replace"]
    if replaced:
        _confirm(arguments, f"This deletes and makes again: {', '.join(replaced)}.")
    names = [name for item in deployment.registry for name in (item.username_env, item.password_env)]
    done = apply(
        api,
        steps,
        variables=arguments.settings.named(names),
        on_step=lambda step, identifier: print_on_stderr(f"{_headline(step)} ({identifier})"),
    )
    endpoints = {item.step.desired.name: item.identifier for item in done if item.step.desired.kind == "endpoint"}
    smoke = _wait_and_smoke(arguments, api, deployment, endpoints) if arguments.wait else {}
    if arguments.json:
        resources = [
            {**_step_to_json(item.step), "id": item.identifier, "smoke": smoke.get(item.step.desired.name)}
            for item in done
        ]
        print(json.dumps({"applied": resources}))
    else:
        changed = sum(item.step.verb != "unchanged" for item in done)
        print(f"{changed} changed, {len(done) - changed} unchanged")
    return 0


def _wait_and_smoke(
    arguments: argparse.Namespace, api: "Api", deployment: "Deployment", endpoints: Mapping[str, str]
) -> dict[str, str]:
    from comfypin.runpod.apply import wait_for_workers
    from comfypin.runpod.endpoint_client import run_job

    results = {}
    for config in deployment.endpoint:
        identifier = endpoints[config.name]
        if config.workers.min:
            print_on_stderr(f"waiting for {config.workers.min} workers of {config.name}")
            wait_for_workers(api, identifier, wanted=config.workers.min, timeout_s=arguments.timeout)
        if config.type == "queue":
            print_on_stderr(f"smoke job through {config.name}")
            job = {"workflow": {}, "output": {"mode": "base64"}}
            run_job(
                _jobs_api(arguments), identifier, job, timeout_s=arguments.timeout, on_progress=runpod_run.tell_progress
            )
            results[config.name] = "COMPLETED"
    return results


def _status(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import survey
    from comfypin.runpod.deployment_plan import owned

    deployment = _read_file(arguments)
    api = _api(arguments)
    rows = []
    for kind, item in reversed(owned(deployment.name, survey(api))):
        row: dict[str, object] = {"kind": kind, "name": item["name"], "id": item["id"], "image": item.get("image")}
        env = item.get("env")
        if isinstance(env, Mapping):
            row |= {"release": env.get("COMFY_VERSION_NAME"), "lock_digest": env.get("COMFYPIN_LOCK_DIGEST")}
        if kind == "endpoint":
            answer = api.request("GET", f"/v2/serverless/{item['id']}/workers")
            row["workers"] = answer.get("summary") if isinstance(answer, dict) else None
        if kind == "pod":
            row["status"] = item.get("status")
        rows.append(row)
    if arguments.json:
        print(json.dumps({"deployment": deployment.name, "resources": rows}))
    else:
        for row in rows:
            details = [str(row.get("release") or ""), str(row.get("status") or ""), _workers_text(row.get("workers"))]
            print(f"{row['kind']:<9} {row['name']:<32} {row['id']:<16} {' '.join(filter(None, details))}".rstrip())
        if not rows:
            print(f"nothing of {deployment.name!r} exists; `comfypin runpod apply` makes it")
    return 0


def _destroy(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import destroy, survey
    from comfypin.runpod.deployment_plan import owned

    deployment = _read_file(arguments)
    api = _api(arguments)
    marked = owned(deployment.name, survey(api))
    doomed = [(kind, item) for kind, item in marked if arguments.volumes or kind != "volume"]
    kept = [str(item["name"]) for kind, item in marked if (kind, item) not in doomed]
    for kind, item in doomed:
        print_on_stderr(f"- {kind} {item['name']} ({item['id']})")
    if doomed:
        _confirm(arguments, f"This removes {len(doomed)} resources, for good.")
    destroy(api, doomed, on_removed=lambda kind, name: print_on_stderr(f"removed {kind} {name}"))
    if kept:
        print_on_stderr(f"kept, with their data: {', '.join(kept)} (--volumes removes them)")
    names = [str(item["name"]) for _, item in doomed]
    _say(arguments, {"removed": names, "kept": kept}, f"{len(names)} removed")
    return 0


def _read_file(arguments: argparse.Namespace) -> "Deployment":
    """The file alone: what exists can be looked at and removed though its lock is gone or a rule is broken."""
    from comfypin.runpod.deployment_file import read_deployment

    return read_deployment(arguments.file).deployment


def _read(arguments: argparse.Namespace) -> "tuple[Deployment, ReleaseFacts]":
    """The file and its release's facts, checked by every rule that needs no network."""
    from comfypin.lock.codec import lock_digest, read_lock
    from comfypin.lock.lookup import find_lock
    from comfypin.runpod.deployment_file import read_deployment
    from comfypin.runpod.errors import DeploymentInvalid
    from comfypin.runpod.platform_rules import findings
    from comfypin.runpod.release_facts import release_facts

    deployment = read_deployment(arguments.file).deployment
    lock = read_lock(find_lock(arguments.lock or deployment.release)).lock
    release = release_facts(lock, lock_digest(lock))
    if found := findings(deployment, release):
        raise DeploymentInvalid(path=str(arguments.file), findings=found)
    return deployment, release


def _survey_and_plan(
    api: "Api", deployment: "Deployment", release: "ReleaseFacts"
) -> "tuple[Live, tuple[Step, ...], tuple[HourlyCost, ...]]":
    from comfypin.runpod.apply import survey
    from comfypin.runpod.cost import hourly_costs
    from comfypin.runpod.deployment_plan import plan
    from comfypin.runpod.desired_state import desired_state
    from comfypin.runpod.errors import DeploymentInvalid
    from comfypin.runpod.platform_rules import gpu_findings

    live, gpus = survey(api), api.gpus()
    if found := gpu_findings(deployment, release, gpus):
        raise DeploymentInvalid(path="runpod.toml", findings=found)
    return live, plan(deployment.name, desired_state(deployment, release), live), hourly_costs(deployment, gpus)


def _api(arguments: argparse.Namespace) -> "Api":
    from comfypin.wiring import runpod_api

    return runpod_api(arguments.settings)


def _jobs_api(arguments: argparse.Namespace) -> "Api":
    from comfypin.wiring import runpod_jobs_api

    return runpod_jobs_api(arguments.settings)


def _confirm(arguments: argparse.Namespace, question: str) -> None:
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: add --yes.")
    print(f"{question} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("Nothing was changed.")


def _plan_lines(steps: "tuple[Step, ...]") -> list[str]:
    lines = []
    for step in steps:
        lines.append(f"{_SIGNS[step.verb]} {_headline(step)}")
        lines += [f"      {change.path}: {change.before!r} -> {change.after!r}" for change in step.changes]
    counts = {verb: sum(step.verb == verb for step in steps) for verb in _SIGNS}
    return [*lines, "", ", ".join(f"{count} to {verb}" for verb, count in counts.items() if verb != "unchanged")]


def _headline(step: "Step") -> str:
    return f"{step.verb} {step.desired.kind} {step.desired.name}"


def _cost_lines(costs: "tuple[HourlyCost, ...]") -> list[str]:
    lines = []
    for cost in costs:
        if cost.least is None or cost.most is None:
            lines.append(f"{cost.kind} {cost.name}: no price in the catalog")
        else:
            lines.append(f"{cost.kind} {cost.name}: ${cost.least:.2f} to ${cost.most:.2f} an hour")
    return lines


def _costs_to_json(costs: "tuple[HourlyCost, ...]") -> list[dict[str, object]]:
    return [{"kind": cost.kind, "name": cost.name, "least": cost.least, "most": cost.most} for cost in costs]


def _step_to_json(step: "Step") -> dict[str, object]:
    return {
        "action": step.verb,
        "kind": step.desired.kind,
        "name": step.desired.name,
        "remote_name": step.desired.remote_name,
        "changes": [{"path": item.path, "before": item.before, "after": item.after} for item in step.changes],
    }


def _workers_text(summary: object) -> str:
    if not isinstance(summary, Mapping):
        return ""
    return ", ".join(f"{count} {state}" for state, count in summary.items() if count and state != "total")


def _say(arguments: argparse.Namespace, machine: object, people: str) -> None:
    print(json.dumps(machine) if arguments.json else people)
