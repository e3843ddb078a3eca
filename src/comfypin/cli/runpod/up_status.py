"""`comfypin runpod status NAME`: what `up` made, its workers and the rollout; with --watch each change."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.runpod.up import STATE_FOLDER

if TYPE_CHECKING:
    from comfypin.runpod.management_api import ManagementApi, Resource

# Workers start and stop within tens of seconds.
_WATCH_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add to `status` what names a deployment of `up`."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a deployment of `up` (default: what --file says)")
    parser.add_argument("--watch", action="store_true", help="print each change, until Ctrl-C")
    parser.add_argument(
        "--state-dir", type=Path, default=STATE_FOLDER, metavar="DIR", help="where the history lies (.comfypin/up)"
    )


def choose_deployment(arguments: argparse.Namespace) -> str | None:
    """Return the deployment of `up` that is meant, None if runpod.toml is. Raises `UpNameUnknown`."""
    from comfypin.runpod.up.errors import UpNameUnknown
    from comfypin.runpod.up.state import list_deployments

    names = list_deployments(arguments.state_dir)
    if arguments.name is None:
        # Where both are, the file comes first, as it always did.
        return names[0] if len(names) == 1 and not arguments.file.exists() else None
    if arguments.name not in names:
        raise UpNameUnknown(asked=f"{arguments.state_dir} has no deployment {arguments.name!r}", names=names)
    return str(arguments.name)


def show_status(arguments: argparse.Namespace, deployment_name: str) -> int:
    """Print the status once, or each time that it has changed."""
    from comfypin.wiring import open_runpod_api

    management_api = open_runpod_api(arguments.settings)
    last: object = None
    while True:
        rows = _read_rows(management_api, deployment_name)
        if rows != last:
            last = rows
            if arguments.json:
                print(json.dumps({"deployment": deployment_name, "resources": rows}), flush=True)
            else:
                print(
                    "\n".join(_format_row(row) for row in rows) or f"nothing of {deployment_name!r} exists", flush=True
                )
        if not arguments.watch:
            return 0
        management_api.sleep(_WATCH_S)


def _read_rows(management_api: "ManagementApi", deployment_name: str) -> list[dict[str, object]]:
    from comfypin.runpod.apply import survey_account
    from comfypin.runpod.deployment_plan import owned_resources

    owned = owned_resources(deployment_name, survey_account(management_api))
    return [_read_row(management_api, kind, dict(resource)) for kind, resource in reversed(owned)]


def _read_row(management_api: "ManagementApi", kind: str, resource: "Resource") -> dict[str, object]:
    row: dict[str, object] = {"kind": kind, "name": resource["name"], "id": resource["id"]}
    if kind == "volume":
        row |= {"size_gb": resource.get("size"), "data_center": resource.get("dataCenter")}
    if kind == "pod":
        row["status"] = resource.get("status")
    if kind == "endpoint":
        variables = resource.get("env")
        row["lock_digest"] = variables.get("COMFYPIN_LOCK_DIGEST") if isinstance(variables, Mapping) else None
        row["workers"] = _read_part(management_api, f"/v2/serverless/{resource['id']}/workers", "summary")
        row["rollout"] = _read_part(management_api, f"/v2/serverless/{resource['id']}/releases", "rollout")
    return row


def _read_part(management_api: "ManagementApi", path: str, part: str) -> object:
    answer = management_api.send_request("GET", path)
    return answer.get(part) if isinstance(answer, dict) else None


def _format_row(row: Mapping[str, object]) -> str:
    details = [str(row[column]) for column in ("status", "data_center") if row.get(column)]
    if row.get("size_gb"):
        details.append(f"{row['size_gb']} GB")
    if row.get("lock_digest"):
        details.append(f"lock {str(row['lock_digest']).removeprefix('sha256:')[:12]}")
    workers, rollout = row.get("workers"), row.get("rollout")
    if isinstance(workers, Mapping):
        counts = [f"{count} {state}" for state, count in workers.items() if count and state != "total"]
        details.append(", ".join(counts) or "no worker")
    if isinstance(rollout, Mapping) and rollout.get("inProgress"):
        details.append(f"rollout {rollout.get('percentOnLatest')} %")
    return f"{row['kind']:<9} {row['name']!s:<32} {row['id']!s:<16} {', '.join(details)}".rstrip()
