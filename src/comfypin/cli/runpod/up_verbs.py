"""What there is besides `comfypin runpod up`: history, rollback, logs and down of what it made."""

import argparse
import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.runpod.consent import require_consent
from comfypin.cli.runpod.up import PlannedUp, UpJob, add_up_flags, carry_out_and_report, hold_deployment
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from comfypin.runpod.desired_state import ResourceKind
    from comfypin.runpod.management_api import ManagementApi, Resource
    from comfypin.runpod.up.state import StateFolder, UpRelease, UpState


def configure(action_parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verbs."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name", metavar="NAME", nargs="?", help="the deployment (default: the only one)")
    add_up_flags(common)
    action_parsers.add_parser("history", parents=[common], help="list the releases that `up` deployed")
    rollback = action_parsers.add_parser("rollback", parents=[common], help="deploy an earlier release again")
    rollback.add_argument("--to", type=int, metavar="N", help="the release's number (default: the one before)")
    rollback.add_argument("--no-job", action="store_true", help="do not run a job through the endpoint")
    rollback.add_argument("--out-dir", type=Path, default=Path("out"), help="the folder for its outputs (out)")
    rollback.add_argument("--timeout", type=float, default=3600, metavar="S", help="the time limit of each wait (3600)")
    rollback.add_argument("--dry-run", action="store_true", help="print the plan; exit code 2 if it changes anything")
    rollback.add_argument("--yes", action="store_true", help="do not ask")
    logs = action_parsers.add_parser("logs", parents=[common], help="print the logs of the workers, and of a fill")
    logs.add_argument("--worker", metavar="ID", help="only of this worker")
    logs.add_argument("--tail", type=int, default=100, metavar="N", help="lines of the past (100)")
    logs.add_argument("--follow", action="store_true", help="go on with new lines until Ctrl-C")
    down = action_parsers.add_parser("down", parents=[common], help="remove what `up` made")
    down.add_argument("--volumes", action="store_true", help="remove its network volume and the data too")
    down.add_argument("--yes", action="store_true", help="do not ask")


def _show_history(arguments: argparse.Namespace) -> int:
    _, state = _find_deployment(arguments)
    current = state.current
    rows = [
        {
            "number": release.number,
            "current": current is not None and release.number == current.number,
            "stage": release.stage,
            "made_at": release.made_at,
            "lock_digest": release.lock_digest,
            "image": release.image,
            "workflow": release.workflow,
            "note": release.note,
            "seconds": dict(release.seconds),
        }
        for release in state.releases
    ]
    if arguments.json:
        print(json.dumps({"name": state.name, "releases": rows}))
        return 0
    for row in rows:
        digest = str(row["lock_digest"]).removeprefix("sha256:")[:12]
        image = str(row["image"]).rpartition("@sha256:")[2][:12]
        mark = "*" if row["current"] else " "
        made = f"{mark} {row['number']:>3}  {row['made_at']}  lock {digest}  image {image}"
        print(f"{made}  {row['workflow']}  {row['stage']}  {row['note']}".rstrip())
    return 0


def _roll_back(arguments: argparse.Namespace) -> int:
    from comfypin.digest import Digest
    from comfypin.lock.carried import carry_lock
    from comfypin.lock.codec import read_lock, render_lock
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.release_facts import release_facts
    from comfypin.runpod.up.plan import UpFacts, plan_up
    from comfypin.wiring import open_runpod_api

    management_api = open_runpod_api(arguments.settings)
    folder, _ = _find_deployment(arguments)
    with hold_deployment(folder):
        state = folder.read()
        release = _release_to_return_to(arguments, state)
        lock = read_lock(folder.lock_path(release.lock_digest)).lock
        facts = UpFacts(
            release_facts=release_facts(lock, Digest.parse(release.lock_digest)),
            carried_lock=carry_lock(render_lock(lock)),
            live=survey_account(management_api),
        )
        plan = plan_up(state.name, release, facts, state)
        plan = replace(plan, smoke=plan.smoke and not arguments.no_job)
        # Whether its workflow is still that of then is seen by its digest; else the smallest job proves the engine.
        job = UpJob(content=_workflow_of(release))
        planned = PlannedUp(plan=plan, facts=facts, state=state, place=None, job=job)
        return carry_out_and_report(arguments, management_api, planned)


def _release_to_return_to(arguments: argparse.Namespace, state: "UpState") -> "UpRelease":
    """Return the release as the newest of the history. Raises `ReleaseNumberUnknown`."""
    import time

    from comfypin.runpod.up.errors import ReleaseNumberUnknown

    deployed = [release for release in state.releases if release.stage != "planned"]
    current = state.current
    candidates = [release for release in deployed if current is None or not release.deploys_as(current)]
    earlier_release = (
        next((release for release in deployed if release.number == arguments.to), None)
        if arguments.to is not None
        else (candidates[-1] if candidates else None)
    )
    if earlier_release is None:
        raise ReleaseNumberUnknown(
            name=state.name,
            wanted=str(arguments.to or "earlier than this one"),
            numbers=[str(release.number) for release in deployed],
        )
    latest = state.latest
    assert latest is not None
    # A rollback that was cut off is the one that goes on.
    if latest.stage == "planned" and latest.deploys_as(earlier_release):
        return latest
    return replace(
        earlier_release,
        number=latest.number if latest.stage == "planned" else latest.number + 1,
        note=f"back to {earlier_release.number}",
        stage="planned",
        seconds={},
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _workflow_of(release: "UpRelease") -> dict[str, object]:
    from comfypin.digest import Digest
    from comfypin.workflow.read_file import read_workflow_bytes

    try:
        workflow_bytes = Path(release.workflow).read_bytes()
    except OSError:
        return {}
    if Digest.of(workflow_bytes).hex != release.workflow_sha256:
        return {}
    return dict(read_workflow_bytes(workflow_bytes, source=release.workflow, prefer="workflow").content)


def _print_logs(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.up.log_events import read_log
    from comfypin.wiring import open_runpod_api

    management_api = open_runpod_api(arguments.settings)
    _, state = _find_deployment(arguments)
    seen: dict[str, str] = {}
    while True:
        log_paths = _log_paths(management_api, state.name, arguments.worker)
        if not log_paths and not arguments.follow:
            print_on_stderr(f"nothing of {state.name} runs now: no worker, and no pod that fills its volume")
        for label, path in log_paths:
            lines = read_log(
                management_api,
                path,
                # Long enough for what there is; only a reader that follows waits for more.
                seconds=5.0 if arguments.follow else 3.0,
                after=seen.get(path),
                tail=arguments.tail,
            )
            # What a worker prints meanwhile is for those who follow.
            for line in lines if arguments.follow else islice(lines, arguments.tail):
                seen[path] = line.id
                if arguments.json:
                    print(
                        json.dumps({"from": label, "id": line.id, "source": line.source, "line": line.text}), flush=True
                    )
                else:
                    print(f"{label} | {line.text}", flush=True)
        if not arguments.follow:
            return 0
        management_api.sleep(1.0)


def _log_paths(management_api: "ManagementApi", deployment_name: str, worker: str | None) -> list[tuple[str, str]]:
    """Return the logs that there are now, labelled: of the endpoint's workers, and of a pod that fills the volume."""
    from comfypin.runpod.up.log_events import pod_log_path, worker_log_path

    log_paths = []
    for kind, resource in _owned(management_api, deployment_name):
        if kind == "pod" and worker is None:
            log_paths.append((f"pod {resource['id']}", pod_log_path(str(resource["id"]))))
        if kind == "endpoint":
            answer = management_api.send_request("GET", f"/v2/serverless/{resource['id']}/workers")
            workers = answer.get("workers", []) if isinstance(answer, dict) else []
            log_paths += [
                (f"worker {item['id']}", worker_log_path(str(resource["id"]), str(item["id"])))
                for item in workers
                if worker in (None, item["id"])
            ]
    return log_paths


def _take_down(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.apply import destroy_resources
    from comfypin.runpod.up.plan import secret_name
    from comfypin.runpod.up.platform_secrets import list_secrets, remove_secret
    from comfypin.wiring import open_runpod_api

    management_api = open_runpod_api(arguments.settings)
    folder, state = _find_deployment(arguments)
    with hold_deployment(folder):
        owned = _owned(management_api, state.name)
        doomed = [(kind, resource) for kind, resource in owned if arguments.volumes or kind != "volume"]
        kept_names = [str(resource["name"]) for kind, resource in owned if (kind, resource) not in doomed]
        prefix = secret_name(state.name, "")
        used = set(re.findall(r"RUNPOD_SECRET_([\w.\-/]+)", json.dumps([dict(item.env) for item in state.releases])))
        secrets = {
            secret_label: identifier
            for secret_label, identifier in (list_secrets(management_api) if used else {}).items()
            if secret_label in used and secret_label.startswith(prefix)
        }
        for kind, resource in doomed:
            print_on_stderr(f"- {kind} {resource['name']} ({resource['id']})")
        for secret_label in secrets:
            print_on_stderr(f"- secret {secret_label}")
        if doomed or secrets:
            require_consent(
                f"This removes {format_count(len(doomed) + len(secrets), 'thing')}, for good.", is_given=arguments.yes
            )
        destroy_resources(
            management_api,
            doomed,
            on_removed=lambda kind, resource_name: print_on_stderr(f"removed {kind} {resource_name}"),
        )
        for secret_label, identifier in secrets.items():
            remove_secret(management_api, identifier)
            print_on_stderr(f"removed secret {secret_label}")
        if arguments.volumes:
            folder.write(replace(state, filled=frozenset()))
    if kept_names:
        print_on_stderr(f"kept, with its data: {', '.join(kept_names)} (--volumes removes it)")
    removed = [*(str(resource["name"]) for _, resource in doomed), *secrets]
    print(json.dumps({"removed": removed, "kept": kept_names}) if arguments.json else f"{len(removed)} removed")
    return 0


def _owned(management_api: "ManagementApi", deployment_name: str) -> "list[tuple[ResourceKind, Resource]]":
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.deployment_plan import owned_resources

    return [
        (kind, dict(resource)) for kind, resource in owned_resources(deployment_name, survey_account(management_api))
    ]


def _find_deployment(arguments: argparse.Namespace) -> "tuple[StateFolder, UpState]":
    """Return the deployment that is named, or the only one. Raises `UpNameUnknown`."""
    from comfypin.runpod.up.errors import UpNameUnknown
    from comfypin.runpod.up.state import StateFolder, list_deployments

    names = list_deployments(arguments.state_dir)
    if arguments.name is None and len(names) != 1:
        raise UpNameUnknown(asked="It is not clear which deployment is meant", names=names)
    deployment_name = arguments.name or names[0]
    if deployment_name not in names:
        raise UpNameUnknown(asked=f"{arguments.state_dir} has no deployment {deployment_name!r}", names=names)
    folder = StateFolder(root=arguments.state_dir, name=deployment_name)
    return folder, folder.read()


ACTIONS = {"history": _show_history, "rollback": _roll_back, "logs": _print_logs, "down": _take_down}
