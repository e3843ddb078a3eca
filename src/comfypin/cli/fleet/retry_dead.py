"""`comfypin fleet retry-dead`: run again jobs that were given up since their workers died."""

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING

from comfypin.cli.fleet.members import with_fleet
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="the jobs (default: all)")


def execute(arguments: argparse.Namespace, address: str) -> int:
    """Queue them again."""
    return with_fleet(arguments, address, lambda fleet: _retry_dead(arguments, fleet))


async def _retry_dead(arguments: argparse.Namespace, fleet: "Fleet") -> int:
    from comfypin.queue.nats.fleet_job import queued_again
    from comfypin.queue.nats.overview import list_dead_jobs
    from comfypin.queue.nats.rolls import read_rolls

    rolls = await read_rolls(fleet.control)
    dead = [job.id for job in await list_dead_jobs(fleet)]
    if unknown := sorted(set(arguments.ids) - set(dead)):
        raise UsageError(
            f"{', '.join(unknown)}: not among the jobs that were given up; `comfypin fleet status` lists them."
        )
    retried = []
    for job_id in arguments.ids or dead:
        # A job of a release that was rolled goes to the release that took its place.
        change = partial(queued_again, at=time.time(), successor=rolls.successor)
        stored_job = await fleet.states.change(job_id, change)
        if stored_job is not None and stored_job.changed:
            await fleet.tickets.issue(stored_job.job)
            retried.append(job_id)
    if arguments.json:
        print(json.dumps({"retried": retried, "refused": sorted(set(arguments.ids or dead) - set(retried))}))
    else:
        print("\n".join(retried) if retried else "no job was given up")
    return 0
