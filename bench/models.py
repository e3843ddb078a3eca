"""How fast models come, verified, against the tools that people use: one large file and eight, unlimited and limited.

    python bench/models.py [--size-mib 2048] [--rounds 3] [--cases one,eight,...] [--folder DIR] [--hub-python PYTHON]

A real nginx on loopback serves random files from the page cache. Every case runs all peers in turn, `--rounds` times,
and prints medians, the ratio to ours, and its goal where there is one; before each run, as much memory as it will fill
is taken and freed. The machine should be quiet; the ratios are what counts. Peers that are not installed are left out
by name. huggingface_hub is looked for in --hub-python (default: this interpreter).
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

MIB = 1 << 20
LIMIT = "50m"
# The ETag differs by name, as the hub's do: its client keeps one blob for each.
HUB_HEADERS = (
    "add_header X-Repo-Commit 0123456789abcdef0123456789abcdef01234567 always; add_header X-Linked-Etag $1 always;"
)
HUB_GET = """
import sys, hashlib
from huggingface_hub import hf_hub_download
for name, digest in zip(sys.argv[3::2], sys.argv[4::2]):
    path = hf_hub_download("org/repo", name, endpoint=sys.argv[1], cache_dir=sys.argv[2])
    assert hashlib.file_digest(open(path, "rb"), "sha256").hexdigest() == digest
"""
HASH_AND_WRITE = """
import sys, hashlib
buffer = bytearray(1 << 20); view = memoryview(buffer)
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    hasher = hashlib.sha256()
    with open(source, "rb", buffering=0) as reading, open(target, "wb", buffering=0) as writing:
        while count := reading.readinto(buffer):
            writing.write(view[:count]); hasher.update(view[:count])
"""


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall and processor time, and the peak of resident memory in MiB."""

    wall_s: float
    cpu_s: float
    rss_mib: float


@dataclass(frozen=True)
class Files:
    """What is served: names and digests."""

    folder: Path
    digests: dict[str, str]
    size_bytes: int

    def url(self, base: str, name: str) -> str:
        return f"{base}/{name}"


def run(command: list[str], **variables: str) -> Sample:
    """Run a command to its end; a failure ends the bench."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        # Byte-code as an installation has it, whatever the developer's shell says.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**environ, **variables})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[0]}: {said.read().decode(errors='replace')[-2000:]}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def shell(script: str) -> Sample:
    return run(["bash", "-euo", "pipefail", "-c", script])


def make_files(folder: Path, count: int, size_bytes: int) -> Files:
    """Random files, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for number in range(count):
        name = f"f{number}.gguf"
        path = folder / name
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            for _ in range(size_bytes // MIB):
                block = os.urandom(MIB)
                file.write(block)
                hasher.update(block)
            # Writing this back must not compete with what is measured.
            file.flush()
            os.fsync(file.fileno())
        digests[name] = hasher.hexdigest()
    return Files(folder, digests, size_bytes)


def ours(files: Files, base: str, to: Path) -> Sample:
    lock = to / "lock.json"
    models = [
        {
            "name": name,
            "target_path": f"$MODELS_DIR/unet/{name}",
            "sha256": digest,
            "size_bytes": files.size_bytes,
            "sources": [files.url(base, name)],
        }
        for name, digest in files.digests.items()
    ]
    lock.write_text(json.dumps({"schema_version": 3, "version_name": "bench", "models": models}))
    program = [sys.executable, "-m", "comfypin.cli.main", "models", "pull", "--lock", str(lock)]
    return run([*program, "--models-dir", str(to / "models")])


def aria2_checksum(files: Files, base: str, to: Path) -> Sample:
    return run([*_aria2(files, base, to, with_checksum=True)])


def aria2_then_sha256sum(files: Files, base: str, to: Path) -> Sample:
    command = " ".join(_aria2(files, base, to, with_checksum=False))
    return shell(f"{command} >/dev/null; cd {to}; ls f*.gguf | xargs -P {os.cpu_count()} -n 1 sha256sum")


def _aria2(files: Files, base: str, to: Path, *, with_checksum: bool) -> list[str]:
    lines = []
    for name, digest in files.digests.items():
        lines.append(files.url(base, name))
        lines.append(f"  out={name}")
        if with_checksum:
            lines.append(f"  checksum=sha-256={digest}")
    (to / "list").write_text("\n".join(lines) + "\n")
    flags = ["-q", "-x8", "-s8", "-j8", "--min-split-size=1M", "--file-allocation=none", "--allow-overwrite=true"]
    return ["aria2c", *flags, "-d", str(to), "-i", str(to / "list")]


def curl_then_sha256sum(files: Files, base: str, to: Path) -> Sample:
    fetched = " ".join(f"-o {to}/{name} {files.url(base, name)}" for name in files.digests)
    names = " ".join(f"{to}/{name}" for name in files.digests)
    return shell(f"curl -sSfZ {fetched}; echo {names} | tr ' ' '\\n' | xargs -P {os.cpu_count()} -n 1 sha256sum")


def curl_together(files: Files, base: str, to: Path) -> Sample:
    fetched = " ".join(f"-o {to}/{name} {files.url(base, name)}" for name in files.digests)
    return shell(f"curl -sSfZ {fetched}")


def curl_only(files: Files, base: str, to: Path) -> Sample:
    """One file after the other, as curl does unless it is told otherwise."""
    fetched = " ".join(f"-o {to}/{name} {files.url(base, name)}" for name in files.digests)
    return shell(f"curl -sSf {fetched}")


def hub_then_hash(files: Files, base: str, to: Path) -> Sample:
    words = [word for pair in files.digests.items() for word in pair]
    command = [OPTIONS.hub_python, "-c", HUB_GET, base, str(to / "cache"), *words]
    return run(command, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HOME=str(to / "home"))


def hash_and_write(files: Files, base: str, to: Path) -> Sample:
    words = [word for name in files.digests for word in (str(files.folder / name), str(to / name))]
    return run([sys.executable, "-c", HASH_AND_WRITE, *words])


Peer = Callable[[Files, str, Path], Sample]
OURS: dict[str, Peer] = {"comfypin models pull": ours}
PEERS: dict[str, Peer] = {
    "aria2c -x8 --checksum": aria2_checksum,
    "aria2c -x8; sha256sum": aria2_then_sha256sum,
    "curl -Z; sha256sum": curl_then_sha256sum,
    "huggingface_hub; hashlib": hub_then_hash,
}
FLOOR: dict[str, Peer] = {"hash and write alone": hash_and_write}
# How many times ours each should take at least, without a limit a connection and with one; ours may use so much memory.
GOALS = {
    "aria2c -x8 --checksum": 1.8,
    "aria2c -x8; sha256sum": 3.0,
    "huggingface_hub; hashlib": 3.0,
    "hash and write alone": 1 / 1.25,
}
LIMITED_GOALS = {"curl": 8.0}
MOST_RSS_MIB = 150


def have_memory(size_bytes: int) -> None:
    """Take and free as many pages as a run will fill, right before it.

    A virtual machine gets memory that lay idle for some seconds back from its host page by page, at five times the cost
    of the write itself; whoever ran first, or after a slow peer, would pay for it.
    """
    path = OPTIONS.folder / "memory"
    block = bytes(MIB)
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(block)
    path.unlink()


def compare(title: str, files: Files, peers: dict[str, Peer], *, server: str = "") -> None:
    """Run the peers in turn, in one folder each that is removed after the run, and print medians and ratios."""
    from tests.support.nginx import nginx

    samples: dict[str, list[Sample]] = {name: [] for name in peers}
    # The hub's addresses lead to the same files.
    hub = f"location ~ ^/org/repo/resolve/[^/]+/(.+)$ {{ {HUB_HEADERS} {server} alias {files.folder}/$1; }}"
    with nginx(files.folder, OPTIONS.folder / "nginx", server=f"{server} {hub}", workers=2) as running:
        for _ in range(OPTIONS.rounds):
            for name, peer in peers.items():
                to = OPTIONS.folder / "to"
                to.mkdir(parents=True)
                have_memory(len(files.digests) * files.size_bytes)
                try:
                    samples[name].append(peer(files, running.url, to))
                finally:
                    shutil.rmtree(to)
    print(f"\n## {title}\n\n| | wall s | CPU s | RSS MiB | times ours | goal |\n|---|---|---|---|---|---|")
    goals = LIMITED_GOALS if server else GOALS
    base = statistics.median(sample.wall_s for sample in samples[next(iter(OURS))])
    for name, taken in samples.items():
        wall = statistics.median(sample.wall_s for sample in taken)
        cpu = statistics.median(sample.cpu_s for sample in taken)
        rss = max(sample.rss_mib for sample in taken)
        goal = f"{goals[name]:.1f}" if name in goals else f"RSS < {MOST_RSS_MIB}" if name in OURS else ""
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {rss:.0f} | {wall / base:.2f} | {goal} |", flush=True)


def available(peers: dict[str, Peer]) -> dict[str, Peer]:
    """The peers that are installed; the others are named on stderr."""
    missing = set()
    if shutil.which("aria2c") is None:
        missing |= {name for name in peers if name.startswith("aria2c")}
    probe = [OPTIONS.hub_python, "-c", "import huggingface_hub"]
    found = shutil.which(OPTIONS.hub_python) and not subprocess.run(probe, capture_output=True, check=False).returncode
    if not found:
        missing |= {name for name in peers if name.startswith("huggingface_hub")}
    for name in sorted(missing):
        print(f"not installed, left out: {name}", file=sys.stderr)
    return {name: peer for name, peer in peers.items() if name not in missing}


def case_one(size: int) -> None:
    files = make_files(OPTIONS.folder / "files", 1, size)
    compare(f"One file of {size // MIB} MiB, unlimited", files, available(OURS | PEERS | FLOOR))


def case_eight(size: int) -> None:
    files = make_files(OPTIONS.folder / "files", 8, size // 8)
    compare(f"Eight files of {size // 8 // MIB} MiB, unlimited", files, available(OURS | PEERS | FLOOR))


def case_one_limited(size: int) -> None:
    files = make_files(OPTIONS.folder / "files", 1, size)
    peers = available(OURS | {"curl": curl_only} | PEERS)
    compare(f"One file of {size // MIB} MiB, {LIMIT} a connection", files, peers, server=f"limit_rate {LIMIT};")


def case_eight_limited(size: int) -> None:
    files = make_files(OPTIONS.folder / "files", 8, size // 8)
    title = f"Eight files of {size // 8 // MIB} MiB, {LIMIT} a connection"
    peers = available(OURS | {"curl": curl_only, "curl -Z": curl_together} | PEERS)
    compare(title, files, peers, server=f"limit_rate {LIMIT};")


def case_deep(size: int) -> None:
    """Deep verification against openssl on all cores."""
    files = make_files(OPTIONS.folder / "models" / "unet", 8, size // 8)
    lock = OPTIONS.folder / "lock.json"
    models = [
        {"name": name, "target_path": f"$MODELS_DIR/unet/{name}", "sha256": digest, "size_bytes": files.size_bytes}
        for name, digest in files.digests.items()
    ]
    lock.write_text(json.dumps({"schema_version": 3, "version_name": "bench", "models": models}))
    verify = [sys.executable, "-m", "comfypin.cli.main", "models", "verify", "--deep", "--lock", str(lock)]
    verify += ["--models-dir", str(OPTIONS.folder / "models")]
    names = " ".join(str(files.folder / name) for name in files.digests)
    openssl = f"echo {names} | tr ' ' '\\n' | xargs -P {os.cpu_count()} -n 1 openssl dgst -sha256"
    mine, theirs, quick = [], [], []
    for _ in range(OPTIONS.rounds):
        mine.append(run(verify).wall_s)
        theirs.append(shell(openssl).wall_s)
        quick.append(run([word for word in verify if word != "--deep"]).wall_s)
    ours_s, theirs_s = statistics.median(mine), statistics.median(theirs)
    print(f"\n## Deep verification of {size // MIB} MiB\n")
    ratio = theirs_s / ours_s
    print(f"comfypin {ours_s:.2f} s, openssl dgst on all cores {theirs_s:.2f} s: {ratio:.2f} of its speed (goal 0.9)")
    print(f"and again, from what is known: {statistics.median(quick):.2f} s with the program's start")


def case_thousand(_size: int) -> None:
    """A thousand verified files, verified again."""
    folder = OPTIONS.folder / "models" / "unet"
    files = make_files(folder, 1000, MIB)
    lock = OPTIONS.folder / "lock.json"
    models = [
        {"name": name, "target_path": f"$MODELS_DIR/unet/{name}", "sha256": digest, "size_bytes": files.size_bytes}
        for name, digest in files.digests.items()
    ]
    lock.write_text(json.dumps({"schema_version": 3, "version_name": "bench", "models": models}))
    verify = [sys.executable, "-m", "comfypin.cli.main", "models", "verify", "--lock", str(lock)]
    verify += ["--models-dir", str(OPTIONS.folder / "models")]
    run(verify)
    again = statistics.median(run(verify).wall_s for _ in range(OPTIONS.rounds))
    empty = OPTIONS.folder / "empty.json"
    empty.write_text('{"schema_version": 3, "version_name": "empty", "models": []}')
    nothing = [str(empty) if word == str(lock) else word for word in verify]
    start = statistics.median(run(nothing).wall_s for _ in range(OPTIONS.rounds))
    print("\n## A thousand verified files, verified again\n")
    print(f"{again:.2f} s (goal: less than 1), of which the program's start {start:.2f} s")


CASES = {
    "one": case_one,
    "eight": case_eight,
    "one-limited": case_one_limited,
    "eight-limited": case_eight_limited,
    "deep": case_deep,
    "thousand": case_thousand,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--hub-python", default=sys.executable)
    return parser.parse_args()


def warm_up() -> None:
    """Let every module have its byte-code, as an installation has, before anything is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-models-", dir=OPTIONS.parent) as folder:
        lock = Path(folder, "lock.json")
        model = Path(folder, "x.gguf")
        model.write_bytes(bytes(MIB))
        pin = {"name": "x", "target_path": "$MODELS_DIR/x.gguf", "size_bytes": MIB, "sources": [str(model)]}
        lock.write_text(json.dumps({"schema_version": 3, "version_name": "bench", "models": [pin]}))
        program = [sys.executable, "-m", "comfypin.cli.main", "models", "pull", "--lock", str(lock)]
        run([*program, "--models-dir", str(Path(folder, "models"))])


def main() -> None:
    size = OPTIONS.size_mib * MIB
    warm_up()
    for name in OPTIONS.cases.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-models-", dir=OPTIONS.parent) as folder:
            OPTIONS.folder = Path(folder)
            CASES[name](size)


if __name__ == "__main__":
    OPTIONS = parse()
    OPTIONS.parent = OPTIONS.folder
    main()
