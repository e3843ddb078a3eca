"""Delivers one job from files in a folder, as a process of its own that tests can kill.

Usage: python -m tests.support.deliver_job FOLDER JOB_ID MODE, with the bucket in the environment. Prints `ready`, then
one line for every upload event, and at the end `rss <MiB>`.
"""

import asyncio
import os
import sys
from pathlib import Path

from comfypin import wiring
from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.outputs.bucket import BucketSink
from comfypin.outputs.interface import JobFacts, Output
from comfypin.outputs.modes import OUTPUT_MODES
from comfypin.settings.environment import Settings


def outputs_in(folder: Path) -> tuple[Output, ...]:
    return tuple(
        Output(
            index=index,
            node_id="9",
            kind="file",
            filename=path.name,
            subfolder="",
            media_type="application/octet-stream",
            size_bytes=path.stat().st_size,
            sha256=Digest.of_file(path),
            path=path,
        )
        for index, path in enumerate(sorted(folder.iterdir()))
    )


def main() -> None:
    folder, job_id, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    sink = wiring.make_sink(next(known for known in OUTPUT_MODES if known == mode), Settings(os.environ))
    if "--watch" in sys.argv and isinstance(sink, BucketSink):
        sink.watcher = lambda event: print(type(event).__name__, event.key, flush=True)
    job = JobFacts(job_id=job_id, release=Release(name="test", digest=Digest.of(b"lock")))
    print("ready", flush=True)
    for delivery in asyncio.run(sink.deliver(job, outputs_in(folder))):
        print(delivery.uri, flush=True)
    # Not getrusage: its maximum is inherited from the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("rss", int(peak.split()[1]) // 1024, flush=True)


if __name__ == "__main__":
    main()
