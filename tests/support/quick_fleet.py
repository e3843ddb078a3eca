"""`comfypin` with the waits of a fleet cut short: `python -m ... serve`. A test sees dead workers in seconds.

All members of a fleet must have the same waits: they are the settings of its consumers in NATS.
"""

import sys

from comfypin.queue.nats import chores, layout, ticket_run, worker

ACK_WAIT_S = 4.0


def make_quick() -> None:
    """Cut the waits of this process short."""
    layout.ACK_WAIT_S = ACK_WAIT_S
    for module in (ticket_run, worker):
        module.HEARTBEAT_S = ACK_WAIT_S / 4  # type: ignore[attr-defined]
    worker._LOOK_EVERY_S = 1.0
    chores._MEND_EVERY_S = 1.0
    chores._TICKET_DUE_AFTER_S = ACK_WAIT_S


if __name__ == "__main__":
    from comfypin.cli.main import main

    make_quick()
    sys.exit(main())
