"""A cold start, side by side: our worker, worker-comfyui's own handler, and a bare ComfyUI, on the same files.

    python bench/coldstart.py --comfyui HOME [--models DIR] [--peer DIR --peer-python PYTHON] [--rounds 3]
        [--mb-s 200] [--latency-ms 2] [--steps 1] [--size 128] [--work DIR] [--json]

HOME holds ComfyUI and its `.venv`. The models are two checkpoints of 1.85 GB (SD 1.5's shape, random weights), written
into `--models` if they are not there, and read through a FUSE volume of that rate and latency, which is emptied from
memory before each cold run. The peer is a checkout of runpod-workers/worker-comfyui, with a Python that has its
requirements; its start script's GPU check and LD_PRELOAD are left out. Both workers take one job, two checkpoints one
after the other, from a queue where it waits from the start. Runs are interleaved; medians and ratios are printed, with
the load of the machine, on which seconds depend. The job is small (one step of 128 pixels a checkpoint): what a GPU
does in a moment, four steps of 256 pixels, is 20 s of both runs on two cores, and part of no start. `engine` is when
ComfyUI answers, `takes` when the SDK asks for a job, `first job` when its result is there.

Without --comfyui it runs our worker alone on the embedded engine with two small files: to see that it works.
"""

# ruff: noqa: E402 - the path comes first, so that the file runs from a checkout
import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

from comfypin.digest import Digest
from tests.support.nginx import free_port
from tests.support.runpod_queue import RunpodQueue, worker
from tests.support.slow_volume import can_mount, slow_volume
from tests.support.tiny_checkpoint import write_full_checkpoint

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ("base-a.safetensors", "base-b.safetensors")
POLL_S = 0.05
GIVE_UP_S = 1800.0
Moments = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """What each of the job's two samplers does."""

    steps: int
    pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the runs share: ComfyUI, the models as the volume shows them, the lock, the job, folders."""

    home: Path | None
    models: Path
    lock: Path
    job: JobSize
    work: Path
    peer: Path | None = None
    peer_python: str = sys.executable

    @property
    def comfyui_command(self) -> list[str]:
        """ComfyUI's main.py with its Python."""
        assert self.home is not None
        main = next(path for path in (self.home / "ComfyUI" / "main.py", self.home / "main.py") if path.is_file())
        return [str(self.home / ".venv" / "bin" / "python"), str(main)]


@dataclass(slots=True)
class Table:
    """Seconds by run and moment."""

    rows: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, run: str, moments: Moments) -> None:
        for moment, seconds in moments.items():
            self.rows.setdefault((run, moment), []).append(seconds)
        shown = ", ".join(f"{moment} {seconds:.1f} s" for moment, seconds in moments.items())
        print(f"{run}: {shown} (load {os.getloadavg()[0]:.1f})", flush=True)

    def median(self, run: str, moment: str) -> float | None:
        found = self.rows.get((run, moment))
        return statistics.median(found) if found else None

    def ratio(self, ours: tuple[str, str], theirs: tuple[str, str]) -> float | None:
        mine, other = self.median(*ours), self.median(*theirs)
        return mine / other if mine and other else None


def two_models(job: JobSize) -> dict[str, Any]:
    """Two checkpoints one after the other: the second one paints over what the first one made."""
    graph: dict[str, Any] = {"9": _node("EmptyLatentImage", width=job.pixels, height=job.pixels, batch_size=1)}
    latent: list[Any] = ["9", 0]
    for number, name in enumerate(CHECKPOINTS):
        loader, text, sampler = f"{number}1", f"{number}2", f"{number}3"
        graph[loader] = _node("CheckpointLoaderSimple", ckpt_name=name)
        graph[text] = _node("CLIPTextEncode", clip=[loader, 1], text="a harbour at dawn")
        graph[sampler] = _node(
            "KSampler",
            **{"model": [loader, 0], "positive": [text, 0], "negative": [text, 0], "latent_image": latent},
            **{
                "seed": 1,
                "steps": job.steps,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        )
        latent = [sampler, 0]
    graph["7"] = _node("VAEDecode", samples=latent, vae=["11", 2])
    graph["8"] = _node("SaveImage", images=["7", 0], filename_prefix="bench")
    return graph


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--models", type=Path, help="a folder for the models, kept")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mb-s", type=float, default=200)
    parser.add_argument("--latency-ms", type=float, default=2)
    parser.add_argument("--steps", type=int, default=1, help="of each of the job's two samplers")
    parser.add_argument("--size", type=int, default=128, help="of the job's picture, in pixels")
    parser.add_argument("--work", type=Path, help="a folder for the runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        models = (arguments.models or work / "models").absolute()
        write_models(models, full=arguments.comfyui is not None)
        if can_mount():
            seen = stack.enter_context(
                slow_volume(models, work / "volume", mb_s=arguments.mb_s, latency_ms=arguments.latency_ms)
            )
        else:
            print("this machine mounts no FUSE volume (root, /dev/fuse): the models are read from the disk as it is")
            seen = models
        job = JobSize(steps=arguments.steps, pixels=arguments.size)
        setting = Setting(
            home=arguments.comfyui and arguments.comfyui.absolute(),
            models=seen,
            lock=write_lock(work, models, seen, warmup=two_models(job) if arguments.comfyui else None),
            job=job,
            work=work,
            peer=arguments.peer,
            peer_python=str(Path(shutil.which(arguments.peer_python) or arguments.peer_python).absolute()),
        )
        table = Table()
        for _ in range(arguments.rounds):
            run_round(setting, table)
    report(table, as_json=arguments.json)


def write_models(models: Path, *, full: bool) -> None:
    """Write what is not there."""
    (models / "checkpoints").mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CHECKPOINTS):
        path = models / "checkpoints" / name
        if path.is_file():
            continue
        if full:
            write_full_checkpoint(path, seed=seed)
        else:
            path.write_bytes(os.urandom(1 << 20))


def write_lock(work: Path, models: Path, seen: Path, *, warmup: dict[str, Any] | None) -> Path:
    """A lock with the models' digests; the store on the volume knows them, as after `models pull`."""
    pins: list[dict[str, Any]] = []
    known: list[str] = []
    for name in CHECKPOINTS:
        path = models / "checkpoints" / name
        digest, size = Digest.of_file(path).hex, path.stat().st_size
        target = f"$MODELS_DIR/checkpoints/{name}"
        pins.append({"name": name, "target_path": target, "sha256": digest, "size_bytes": size, "sources": []})
        status = (seen / "checkpoints" / name).stat()
        known.append(json.dumps([f"../checkpoints/{name}", size, status.st_mtime_ns, status.st_ino, digest, None]))
    (models / ".comfypin").mkdir(exist_ok=True)
    (models / ".comfypin" / "verified").write_text("\n" + "\n".join(known))
    engine = {"kind": "embedded" if warmup is None else "comfyui", "warmup": warmup}
    path = work / "bench.lock.json"
    path.write_text(json.dumps({"schema_version": 3, "version_name": "bench", "models": pins, "engine": engine}))
    return path


def run_round(setting: Setting, table: Table) -> None:
    """Each start once, cold ones from a volume that nothing remembers, warm ones after another."""
    if setting.home is None:
        empty_memory(setting.models)
        table.add("ours, cold", our_worker(setting))
        table.add("ours, warm", our_worker(setting))
        return
    if setting.peer is not None:
        empty_memory(setting.models)
        table.add("worker-comfyui, cold", their_worker(setting))
    empty_memory(setting.models)
    table.add("ours, cold", our_worker(setting))
    table.add("bare ComfyUI, warm", bare_comfyui(setting))
    table.add("ours, warm", our_worker(setting))
    if setting.peer is not None:
        table.add("worker-comfyui, warm", their_worker(setting))


def empty_memory(models: Path) -> None:
    """Have the kernel forget the volume's files, and nobody else's."""
    for path in (models / "checkpoints").iterdir():
        give_up = time.monotonic() + 30
        while True:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            # What a process that is still ending has mapped stays: the next run would read it from memory.
            if (kept_bytes := bytes_in_memory(path)) < path.stat().st_size // 100:
                break
            if time.monotonic() > give_up:
                sys.exit(f"{path.name}: {kept_bytes / 1e6:.0f} MB stay in memory, so no cold start can be measured")
            time.sleep(0.2)


def bytes_in_memory(path: Path) -> int:
    """Return how much of a file the kernel holds; 0 where `fincore` (util-linux) is absent."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    if shutil.which(command[0]) is None:
        return 0
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def our_worker(setting: Setting) -> Moments:
    """`comfypin worker`, from its start to the first job's end."""
    environ = {"LOCK_PATH": str(setting.lock), "MODELS_DIR": str(setting.models), "OUTPUT_MODE": "base64"}
    if setting.home is not None:
        environ["COMFY_HOME"] = str(setting.home)
    job = {"workflow": two_models(setting.job) if setting.home is not None else {}}
    with RunpodQueue().running() as queue:
        queue.put("job-1", job)
        began_s = time.monotonic()
        with worker(queue, "--lock", str(setting.lock), environ=environ) as process:
            log: Path = process.log  # type: ignore[attr-defined]
            is_ready = lambda: '"engine_ready"' in log.read_text()  # noqa: E731 - one of three probes in a call
            moments = follow(queue, began_s, is_ready, process, log)
        print_phases(queue.final("job-1") or {})
        return moments


def print_phases(answer: Mapping[str, Any]) -> None:
    """Print where the time went: the phases of the start, which overlap, and those of the job."""
    seconds = answer.get("output", {}).get("seconds", {})
    for name in ("start", "phases", "nodes"):
        phases = seconds.get(name, {})
        print(f"  {name}: {', '.join(f'{phase} {phase_s:.1f} s' for phase, phase_s in phases.items())}", flush=True)


def their_worker(setting: Setting) -> Moments:
    """ComfyUI and handler.py, as worker-comfyui's start script starts them."""
    assert setting.peer is not None
    port, folder = free_port(), Path(tempfile.mkdtemp(dir=setting.work))
    handler = (setting.peer / "handler.py").read_text()
    # Its constants: another ComfyUI may run on this machine.
    handler = handler.replace("127.0.0.1:8188", f"127.0.0.1:{port}").replace("/tmp/comfyui.pid", str(folder / "pid"))
    (folder / "handler.py").write_text(handler)
    shutil.copy(setting.peer / "src" / "network_volume.py", folder)
    log = folder / "log"
    with RunpodQueue().running() as queue, log.open("wb") as output:
        queue.put("job-1", {"workflow": two_models(setting.job)})
        began_s = time.monotonic()
        arguments = ["--disable-metadata", "--verbose", "DEBUG", "--log-stdout"]
        comfyui = start_comfyui(setting, port, folder, output, *arguments)
        (folder / "pid").write_text(str(comfyui.pid))
        environ = {**os.environ, **queue_variables(queue), "HOME": str(folder)}
        command = [setting.peer_python, "-u", str(folder / "handler.py")]
        # In a folder of its own: older SDKs note running jobs in the working directory, and one that was killed there
        # would look as if it still ran.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environ, cwd=folder, start_new_session=True
        )
        try:
            return follow(queue, began_s, lambda: answers(port), process, log, comfyui)
        finally:
            end_group(process)
            end_group(comfyui)


def bare_comfyui(setting: Setting) -> Moments:
    """ComfyUI alone, until it answers."""
    port, folder = free_port(), Path(tempfile.mkdtemp(dir=setting.work))
    with (folder / "log").open("wb") as output:
        began_s = time.monotonic()
        comfyui = start_comfyui(setting, port, folder, output)
        try:
            wait_for(lambda: answers(port), folder / "log", comfyui)
            return {"engine": time.monotonic() - began_s}
        finally:
            end_group(comfyui)


def start_comfyui(setting: Setting, port: int, folder: Path, output: Any, *arguments: str) -> "subprocess.Popen[bytes]":
    """A ComfyUI on this port, with the volume's models."""
    paths = folder / "paths.yaml"
    paths.write_text(json.dumps({"bench": {"base_path": str(setting.models), "checkpoints": "checkpoints"}}))
    folders = [f"--{name}-directory={folder}" for name in ("input", "output", "temp", "user")]
    command = [*setting.comfyui_command, "--disable-auto-launch", "--cpu", "--port", str(port), *folders]
    command += ["--extra-model-paths-config", str(paths), f"--database-url=sqlite:///{folder}/comfyui.db", *arguments]
    return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def follow(
    queue: RunpodQueue,
    began_s: float,
    is_ready: Callable[[], bool],
    process: "subprocess.Popen[bytes]",
    log: Path,
    *others: "subprocess.Popen[bytes]",
) -> Moments:
    """The seconds until each moment has come; the bench ends if one of the processes does."""
    moments: Moments = {}
    probes: Mapping[str, Callable[[], bool]] = {
        "engine": is_ready,
        "takes": lambda: bool(queue.takes),
        "first job": lambda: queue.final("job-1") is not None,
    }

    def note_moments() -> bool:
        for moment, has_come in probes.items():
            if moment not in moments and has_come():
                moments[moment] = time.monotonic() - began_s
        return "first job" in moments and "engine" in moments

    wait_for(note_moments, log, process, *others)
    answer = queue.final("job-1") or {}
    if "error" in answer or "images" not in str(answer):
        sys.exit(f"the job failed: {str(answer)[:2000]}")
    return moments


def wait_for(there: Callable[[], bool], log: Path, *processes: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not there():
        if any(process.poll() is not None for process in processes) or time.monotonic() > deadline:
            sys.exit(f"it ended or takes too long: {log.read_text()[-3000:]}")
        time.sleep(POLL_S)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def queue_variables(queue: RunpodQueue) -> dict[str, str]:
    """The variables by which Runpod's SDK finds its queue."""
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{queue.url}/v2/ep/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{queue.url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{queue.url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_PING": f"{queue.url}/v2/ep/ping/$RUNPOD_POD_ID",
        **{"RUNPOD_AI_API_KEY": "test", "RUNPOD_POD_ID": "pod1", "RUNPOD_ENDPOINT_ID": "ep"},
        **{"RUNPOD_PING_INTERVAL": "60000", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"},
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


def end_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def goals(table: Table) -> Iterator[tuple[str, float | None, float]]:
    """What was promised: the name of a ratio, its value, and the most that it may be."""
    ours, theirs = "ours, cold", "worker-comfyui, cold"
    yield "cold: engine ready, ours / theirs", table.ratio((ours, "engine"), (theirs, "engine")), 1.0
    yield "cold: first job's end, ours / theirs", table.ratio((ours, "first job"), (theirs, "first job")), 0.6
    bare = ("bare ComfyUI, warm", "engine")
    yield "warm: engine ready, ours / bare ComfyUI", table.ratio(("ours, warm", "engine"), bare), 1.1
    yield "warm: takes jobs, ours / bare ComfyUI", table.ratio(("ours, warm", "takes"), bare), 1.1


def report(table: Table, *, as_json: bool) -> None:
    medians = {f"{run}: {moment}": statistics.median(found) for (run, moment), found in table.rows.items()}
    ratios = {name: value for name, value, _ in goals(table) if value is not None}
    if as_json:
        print(json.dumps({"medians_s": medians, "ratios": ratios, "load": os.getloadavg()[0]}))
        return
    for name, seconds in medians.items():
        print(f"median  {name}: {seconds:.2f} s")
    for name, value, most in goals(table):
        if value is not None:
            print(f"ratio   {name}: {value:.2f} (at most {most}: {'kept' if value <= most else 'MISSED'})")


if __name__ == "__main__":
    main()
