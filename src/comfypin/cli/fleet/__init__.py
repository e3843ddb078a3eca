"""Look after a fleet: who works, what waits, how many pods work, and which release takes new jobs.

comfypin fleet status --watch                 workers, backlogs and dead letters, again every two seconds
comfypin fleet retry-dead                     run again all jobs whose workers died
comfypin fleet scale --release demo --max 4   make Runpod pods while jobs wait; they leave by themselves
comfypin fleet roll demo-2                    new workers for new jobs; the old ones finish and leave
"""

import argparse
from typing import TYPE_CHECKING

from comfypin.cli.fleet import retry_dead, roll, scale, status
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_ACTIONS = {
    "status": (status, "show workers, backlogs and jobs that were given up"),
    "retry-dead": (retry_dead, "run again the jobs whose workers died"),
    "scale": (scale, "make Runpod pods while jobs wait for longer than they should"),
    "roll": (roll, "have another release take the jobs of one, and its workers leave"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `fleet`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for verb_name, (action, summary) in _ACTIONS.items():
        verb_parser = actions.add_parser(verb_name, help=summary)
        action.configure(verb_parser)
        verb_parser.add_argument(
            "--queue", metavar="ADDRESS", help="the fleet's queue, such as nats://host:4222 (default: COMFYPIN_QUEUE)"
        )
        verb_parser.add_argument("--json", action="store_true", help="print JSON")
        verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the action."""
    from comfypin import wiring

    wiring.require_fleet_extra(f"comfypin fleet {arguments.action}")
    address = arguments.queue or arguments.settings.fleet.queue
    if address is None:
        raise UsageError("Which fleet? Give --queue nats://HOST:4222, or set COMFYPIN_QUEUE.")
    run: Callable[[argparse.Namespace, str], int] = _ACTIONS[arguments.action][0].execute
    return run(arguments, address)
