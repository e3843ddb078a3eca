"""A fleet under every fault that we know: every accepted job ends once, none is lost, urgent ones go before others.

The short run is the same code, on workers that only take time, with waits of seconds.
"""

import asyncio
import base64
import collections
import io
import time
from pathlib import Path

import pytest
from PIL import Image

from comfypin.queue.nats.fleet_job import FleetJob
from tests.support.fleet_soak import (
    FleetSoak,
    Plan,
    first_starts,
    fleet_soak,
    furthest_out_of_order,
    longest_passed_by_s,
)
from tests.support.networks import can_make_networks

SHORT = Plan(jobs=110, first_jobs=40, workers=4, jobs_per_s=8, cut_s=3, urgent_within_s=15, job_s=0.3)
LONG = Plan(jobs=2000, first_jobs=200, workers=8, jobs_per_s=8, cut_s=30, urgent_within_s=45)


def test_a_fleet_outlives_each_fault_once(tmp_path: Path) -> None:
    with fleet_soak(tmp_path, SHORT, networks=False, module="tests.support.quick_fleet") as soak:
        begin(soak)
        soak.meet("worker killed", soak.worker_killed)
        soak.meet("leader killed", lambda: soak.node_killed(soak.leader()))
        soak.meet("server 0 killed", lambda: soak.server_killed(0))
        judge(soak)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_fleet_outlives_ten_workers_each_server_each_node_and_its_network(tmp_path: Path) -> None:
    with fleet_soak(tmp_path, LONG, networks=can_make_networks()) as soak:
        begin(soak)
        soak.meet_all(workers=10)
        records = judge(soak)
        require_the_right_pictures(soak, records)


def begin(soak: FleetSoak) -> None:
    """Start workers on what waits already, and look at the order while nothing is amiss; then go on sending."""
    plan = soak.plan
    soak.send(plan.first_jobs)
    soak.start_workers()
    records = soak.wait_for_ends(300)
    starts = first_starts(soak.lines(), records)
    passed_by_s = longest_passed_by_s(starts, records)
    by_priority: dict[str, list[str]] = {"high": [], "normal": []}
    for job_id in starts:
        by_priority[records[job_id].row.priority].append(job_id)
    furthest = [furthest_out_of_order([starts[one] for one in ids]) for ids in by_priority.values()]
    print(f"in calm: {len(starts)} starts, places out of order {furthest}, urgent ones passed by {passed_by_s:.2f} s")
    last_urgent = max(starts[one].started_at for one in by_priority["high"])
    early = [one for one in by_priority["normal"] if starts[one].started_at < last_urgent]
    # What is begun at the same moment is written in any order.
    assert len(early) <= plan.workers, early
    assert max(furthest) <= 2 * plan.workers
    soak.begin_load()


def judge(soak: FleetSoak) -> dict[str, FleetJob]:
    """Wait until all is done, print what it showed, and require what is promised."""
    soak.finish_load(600)
    began_s = time.monotonic()
    records = soak.wait_for_ends(300)
    accepted = set(soak.sent.accepted.values())
    lines = list(soak.lines())
    starts = first_starts(iter(lines), records)
    passed_by_s = longest_passed_by_s(starts, records)
    ends = collections.Counter(line["job_id"] for line in lines if line.get("message") == "job ended")
    refused_ends = sum(line.get("message") == "job had ended already" for line in lines)
    attempts = collections.Counter(record.row.attempts for record in records.values())
    print(
        f"{len(accepted)} accepted ({soak.sent.refusals.total()} refused), {len(records)} kept, all ended "
        f"{time.monotonic() - began_s:.0f} s after the last was sent; attempts {dict(attempts)}; "
        f"second ends refused {refused_ends}; urgent ones passed by for {passed_by_s:.1f} s at most"
    )
    assert len(accepted) == soak.plan.jobs
    assert {records[one].row.state for one in accepted} == {"COMPLETED"}
    assert [one for one, count in ends.items() if count > 1] == []
    assert passed_by_s <= soak.plan.urgent_within_s
    require_webhooks_told(soak)
    require_nothing_left(soak, records)
    return records


def require_webhooks_told(soak: FleetSoak) -> None:
    wanted = {job_id for number, job_id in soak.sent.accepted.items() if number % 20 == 0}
    deadline = time.monotonic() + 60
    while wanted - set(soak.sent.told):
        assert time.monotonic() < deadline, f"{len(wanted - set(soak.sent.told))} webhooks were not told"
        time.sleep(0.2)
    print(f"{len(wanted)} webhooks told, {sum(soak.sent.told.values())} posts")


def require_nothing_left(soak: FleetSoak, records: dict[str, FleetJob]) -> None:
    """No ticket outlives its job, all that records name is there, and little else: what was killed leaves a body."""
    named = {body.key for record in records.values() for body in (record.input, record.result) if body is not None}
    deadline = time.monotonic() + 60
    while True:
        tickets, bodies = asyncio.run(soak.read_leavings())
        if not tickets:
            break
        assert time.monotonic() < deadline, sorted(tickets)[:5]
        time.sleep(1)
    assert named <= bodies
    print(f"{len(bodies - named)} bodies that no record names")
    assert len(bodies - named) <= len(soak.faults)


def require_the_right_pictures(soak: FleetSoak, records: dict[str, FleetJob]) -> None:
    for number, job_id in soak.sent.accepted.items():
        if number % 10:
            continue
        (image,) = soak.servers[number % 2].get(f"/status/{job_id}")["output"]["images"]
        pixel = Image.open(io.BytesIO(base64.b64decode(image["data"]))).getpixel((0, 0))
        assert pixel == ((number >> 16) & 255, (number >> 8) & 255, number & 255), (number, pixel)
