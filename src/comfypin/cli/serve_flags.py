"""The flags of `comfypin serve`."""

import argparse
from pathlib import Path

from comfypin.cli.common import add_job_model_flags
from comfypin.cli.flag_values import whole_number
from comfypin.cli.serve_access import DEFAULT_PORT

_COUNT = whole_number(1, 1_000_000)


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `comfypin serve`."""
    address_flags = parser.add_argument_group("address")
    address_flags.add_argument("--host", metavar="ADDRESS", help="listen here (default: 127.0.0.1; on a pod 0.0.0.0)")
    address_flags.add_argument(
        "--port", type=int, metavar="N", help=f"listen on this port (default: PORT, else {DEFAULT_PORT})"
    )
    address_flags.add_argument(
        "--root-path", metavar="PATH", default="", help="the path of a proxy's site below which it passes requests on"
    )
    address_flags.add_argument("--no-auth", action="store_true", help="require no token; only on loopback addresses")
    service_flags = parser.add_argument_group("what")
    service_flags.add_argument(
        "--lock",
        metavar="FILE|NAME",
        help="the release (default: LOCK_PATH, COMFY_VERSION_NAME)",
    )
    service_flags.add_argument("--engine-url", metavar="URL", help="the address of a running ComfyUI to use")
    service_flags.add_argument(
        "--comfy-home",
        metavar="DIR",
        type=Path,
        help="the ComfyUI to start (default: COMFY_HOME); with --engine-url, the folder that it runs from, which is "
        "then compared with the lock",
    )
    service_flags.add_argument(
        "--python",
        metavar="PYTHON|DIR",
        type=Path,
        help="the Python of that ComfyUI, or its environment (default: COMFY_PYTHON, else the one that is found)",
    )
    service_flags.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="the folder of outputs (default: outputs; with --queue in the state folder)",
    )
    service_flags.add_argument(
        "--sync", metavar="DEST", help="sync the output folder there: a bucket such as s3://..., or a folder"
    )
    service_flags.add_argument(
        "--allow-private-inputs", action="store_true", help="let inputs, webhooks and s3Config name private addresses"
    )
    add_job_model_flags(parser)
    _add_limit_flags(parser)
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the folder that keeps jobs, on a local disk")
    parser.add_argument(
        "--queue",
        metavar="ADDRESS",
        help="keep jobs in a fleet's queue, such as nats://host:4222, for workers elsewhere "
        "(default: COMFYPIN_QUEUE, else this machine keeps and runs them)",
    )
    parser.add_argument(
        "--body-url",
        metavar="URL",
        help="where workers and other servers reach this one: it then keeps inputs and results that are too large for "
        "the queue, if there is no bucket (default: COMFYPIN_BODY_URL)",
    )
    parser.add_argument(
        "--json", action="store_true", help="write logs as JSON lines (the default unless on a terminal)"
    )
    parser.add_argument("--keep-temp", action="store_true", help="keep what the engine wrote, for debugging")
    parser.add_argument("--verbose", action="store_true", help="add the engine's log")


def _add_limit_flags(parser: argparse.ArgumentParser) -> None:
    limit_flags = parser.add_argument_group("limits")
    limit_flags.add_argument(
        "--concurrency",
        type=_COUNT,
        default=2,
        metavar="N",
        help="jobs that run at once; one of them is in the engine (2)",
    )
    limit_flags.add_argument("--max-waiting", type=_COUNT, default=1000, metavar="N", help="jobs that may wait (1000)")
    limit_flags.add_argument(
        "--max-body-mb", type=_COUNT, default=64, metavar="N", help="the largest request, in MB (64)"
    )
    limit_flags.add_argument(
        "--max-asset-mb",
        type=_COUNT,
        default=512,
        metavar="N",
        help="the largest upload to /api/v2/assets, in MB (512)",
    )
    limit_flags.add_argument(
        "--keep-hours", type=_COUNT, default=24, metavar="N", help="the hours that results are kept (24)"
    )
    limit_flags.add_argument(
        "--keep-mb", type=_COUNT, default=1024, metavar="N", help="the disk space for results and assets, in MB (1024)"
    )
    limit_flags.add_argument(
        "--connections",
        type=_COUNT,
        metavar="N",
        help="connections at once, half of them for one address (default: a third of the descriptors, 1000 at most)",
    )
    limit_flags.add_argument(
        "--grace", type=_COUNT, default=20, metavar="S", help="seconds that running jobs get after SIGTERM (20)"
    )
