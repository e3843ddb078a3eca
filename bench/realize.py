"""How fast a lock becomes an env, beside plain uv and plain pip of the same pins, and an env pack beside zstd | tar.

    python -m bench.realize [--rounds 3] [--cases build,pack] [--folder DIR] [--other DIR] [--skip-pip] [--lock FILE]
                            [--link MB_PER_S:MS]

`build`: a release of about 40 packages, or that of --lock, realized with empty caches and with warm ones; uv pip sync
and pip install of the same pins, likewise, turn by turn. With --link the packages come from this machine, at such a
rate (0: no limit) and from such a distance, which is the same for everybody; without it from where the lock says.
Beyond installing, realizing verifies every file, and starts ComfyUI where exactly these bytes have not started on this
machine before: cold it does, warm only where it is made to. `pack`: the env unpacked, with byte-code, from --folder to
--other; against uv from a warm cache with --compile-bytecode, and against `zstd -dc | tar x` of the same files.
The machine should be quiet; read the ratios. CPU seconds (all cores, children too) are printed beside the seconds: they
bear a busy machine better.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.mirror import Link, gather, mirrored
from comfypin.env.install import build as build_module
from comfypin.env.install.import_probe import ProbeResult
from comfypin.env.install.sources import SourceLocations
from comfypin.env.interpreter import find_interpreter
from comfypin.env.layout import Home
from comfypin.env.pack.unpack import open_pack, unpack_pack
from comfypin.env.pack.write import write_pack
from comfypin.env.package_selection import choose_target, render_requirements, select_packages
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.lock.codec import read_lock
from comfypin.lock.model import Lock, PythonPins, RepoPin
from comfypin.tools.uv import find_uv
from tests.support.releases import PYTHON, Repo, comfyui_files, resolve_from_pypi

REQUIREMENTS = (
    *(
        "aiohttp",
        "pillow",
        "numpy",
        "scipy",
        "pydantic-settings",
        "transformers<5",
        "sqlalchemy",
        "alembic",
        "requests",
    ),
    *("safetensors", "tqdm", "psutil", "einops", "sentencepiece", "kornia-rs"),
)


_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Bench:
    """The release, and the folders that are used and emptied."""

    root: Path
    other: Path
    lock: Lock
    rounds: int

    @property
    def uv_cache(self) -> Path:
        return self.root / "uv"

    def requirements(self) -> Path:
        path = self.root / "requirements.txt"
        python = find_interpreter(self.python)
        packages = select_packages(self.lock, choose_target(self.lock, python.machine, None), python)
        path.write_text(render_requirements(packages, {}))
        return path

    @property
    def python(self) -> str:
        return str(self.lock.python.version)

    def fresh(self, name: str, *, where: Path | None = None) -> Path:
        """A new name. Nothing is removed: ext4 passes over inodes freed a minute ago, which makes new files slow."""
        return (where or self.root) / f"{name}-{next(_NUMBERS)}"

    def options(self, name: str) -> RealizeOptions:
        home = Home(root=self.fresh(name))
        return RealizeOptions(
            home=home, models_dir=home.root / "models", locations=SourceLocations(cache=self.root / "git")
        )


@dataclass(frozen=True, order=True)
class Cost:
    """Seconds by the clock, and of all cores together."""

    wall: float
    cpu: float


def timed(act: Callable[[], object]) -> Cost:
    began, spent = time.perf_counter(), sum(os.times()[:4])
    act()
    return Cost(time.perf_counter() - began, sum(os.times()[:4]) - spent)


def sh(*command: object, **environ: str) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environ}
    )


def plain_uv(bench: Bench, *flags: str, where: Path | None = None) -> None:
    venv = bench.fresh("plain-uv", where=where)
    sh(find_uv(), "venv", "--quiet", "--no-project", "--python", bench.python, venv)
    arguments = ("pip", "sync", "--quiet", "--no-config", "--require-hashes", "--python", venv / "bin/python", *flags)
    sh(find_uv(), *arguments, bench.requirements(), UV_CACHE_DIR=str(bench.uv_cache))


def plain_pip(bench: Bench) -> None:
    venv = bench.fresh("plain-pip")
    sh(sys.executable, "-m", "venv", venv)
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", bench.requirements())
    environ = {"PIP_CACHE_DIR": str(bench.root / "pip"), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    sh(venv / "bin/python", *install, **environ)


def ours(bench: Bench, *, rebuild: bool = False) -> None:
    realize_env(bench.lock, replace(bench.options("home"), rebuild=rebuild))


def ours_unprobed(bench: Bench) -> None:
    kept = build_module.probe_env
    build_module.probe_env = lambda *_, **__: ProbeResult()
    try:
        realize_env(bench.lock, bench.options("home"))
    finally:
        build_module.probe_env = kept


def compare(
    cases: dict[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, Cost]:
    """Medians, every case once a round, in turn."""
    taken: dict[str, list[Cost]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, act in cases.items():
            before()
            os.sync()
            taken[name].append(timed(act))
    return {
        name: Cost(statistics.median(one.wall for one in costs), statistics.median(one.cpu for one in costs))
        for name, costs in taken.items()
    }


def report(title: str, medians: dict[str, Cost], *, base: str) -> None:
    print(f"\n{title:46} {'seconds':>9} {'ratio':>8} {'CPU':>8} {'ratio':>8}")
    for name, cost in medians.items():
        wall, cpu = cost.wall / medians[base].wall, cost.cpu / medians[base].cpu
        print(f"  {name:44} {cost.wall:9.2f} {wall:8.2f} {cost.cpu:8.2f} {cpu:8.2f}", flush=True)


def bench_build(bench: Bench, *, with_pip: bool) -> dict[str, dict[str, Cost]]:
    both: dict[str, Callable[[], object]] = {
        "uv pip sync": lambda: plain_uv(bench),
        "comfypin realize": lambda: ours(bench),
    }
    if with_pip:
        both["pip install"] = lambda: plain_pip(bench)
    unprobed = {"comfypin realize, without starting ComfyUI": lambda: ours_unprobed(bench)}
    probed = {"comfypin realize, ComfyUI started again": lambda: ours(bench, rebuild=True)}

    def forget() -> None:
        for name in ("uv", "pip", "git"):
            if (bench.root / name).exists():
                (bench.root / name).rename(bench.fresh(name))

    cold = compare({**both, **unprobed}, bench.rounds, forget)
    report("nothing cached", cold, base="uv pip sync")
    # What starting ComfyUI compiles is not in the caches of the last case.
    forget()
    for act in both.values():
        act()
    warm = compare({**both, **probed}, bench.rounds)
    report("everything cached", warm, base="uv pip sync")
    return {"cold": cold, "warm": warm}


def bench_pack(bench: Bench) -> dict[str, dict[str, Cost]]:
    realized = realize_env(bench.lock, bench.options("home"))
    pack = bench.root / "env.envpack"
    packing = timed(lambda: write_pack(realized.folder, pack))
    archive = bench.root / "env.tar.zst"

    def unpack_ours() -> Path:
        folder = bench.fresh("unpacked", where=bench.other)
        folder.mkdir(parents=True)
        with open_pack(pack) as source:
            unpack_pack(source, folder, key=realized.receipt.key)
        return folder

    def unpack_tar() -> None:
        folder = bench.fresh("untarred", where=bench.other)
        folder.mkdir(parents=True)
        sh("sh", "-c", f"zstd -dc {archive} | tar x -C {folder}")

    unpacked = unpack_ours()
    sh("sh", "-c", f"tar -C {unpacked} -cf - . | zstd -q -T0 -f -o {archive}")
    plain_uv(bench)
    size = sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file())
    print(f"\nthe env: {size / 1e6:.0f} MB; pack {pack.stat().st_size / 1e6:.0f} MB, made in {packing.wall:.1f} s")
    compiled = ("--compile-bytecode", "--link-mode", "copy")
    medians = compare(
        {
            "comfypin pack": unpack_ours,
            "zstd -dc | tar x": unpack_tar,
            "uv pip sync --compile-bytecode, warm": lambda: plain_uv(bench, *compiled, where=bench.other),
        },
        bench.rounds,
    )
    report("the env with byte-code, on the other file system", medians, base="comfypin pack")
    return {"pack": medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="build,pack")
    parser.add_argument("--folder", type=Path, default=None, help="where caches and the pack lie")
    parser.add_argument("--other", type=Path, default=Path("/dev/shm"), help="where packs are unpacked to")
    parser.add_argument("--skip-pip", action="store_true")
    parser.add_argument("--lock", type=Path, default=None, help="another release than the usual one")
    parser.add_argument("--link", type=Link.parse, default=None, help="packages from this machine, at such a rate")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-realize-", dir=arguments.folder) as root,
        tempfile.TemporaryDirectory(prefix="bench-realize-", dir=arguments.other) as other,
    ):
        os.environ["UV_CACHE_DIR"] = str(Path(root) / "uv")
        lock = read_lock(arguments.lock).lock if arguments.lock else usual_release(Path(root))
        if arguments.link:
            gather(lock, Path(root) / "wheels")
        with mirrored(lock, Path(root) / "wheels", arguments.link) if arguments.link else nullcontext(lock) as near:
            bench = Bench(root=Path(root), other=Path(other), lock=near, rounds=arguments.rounds)
            run_cases(bench, arguments.cases.split(","), link=arguments.link, with_pip=not arguments.skip_pip)


def usual_release(root: Path) -> Lock:
    """A small ComfyUI with a middling number of packages, of which it imports three."""
    commit = Repo(root / "ComfyUI").commit(comfyui_files("aiohttp\nnumpy\npillow\n"))
    comfyui = RepoPin(repo=(root / "ComfyUI").as_uri(), commit=commit)
    python = PythonPins(version=PYTHON, packages=resolve_from_pypi(REQUIREMENTS))
    return Lock(version_name="usual", comfyui=comfyui, python=python)


def run_cases(bench: Bench, cases: Sequence[str], *, link: Link | None, with_pip: bool) -> None:
    where = f"from this machine, {link}" if link else "from where the lock says"
    print(
        f"{len(bench.lock.python.packages)} packages {where}; medians of {bench.rounds}; load {os.getloadavg()[0]:.1f}"
    )
    results: dict[str, dict[str, Cost]] = {}
    if "build" in cases:
        results |= bench_build(bench, with_pip=with_pip)
    if "pack" in cases:
        results |= bench_pack(bench)
    print(json.dumps({case: {name: asdict(cost) for name, cost in costs.items()} for case, costs in results.items()}))


if __name__ == "__main__":
    main()
