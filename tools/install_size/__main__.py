"""Measures installations and writes their rows into docs/comparison.md and its translation.

    python -m tools.install_size [--only NAME ...]

Each is installed by `uv pip install` into an empty environment; the size is that of all files but bytecode.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = (PROJECT / "docs/comparison.md", PROJECT / "docs/ru/comparison.md")
_OURS = ["", "[s3]", "[gcs]", "[azure]", "[serve]", "[worker]", "[fleet]", "[all]"]
_PEERS = {
    "comfygit": ["comfygit"],
    "comfy-cli": ["comfy-cli"],
    "comfy-pack": ["comfy-pack"],
    "worker-comfyui": ["runpod~=1.7.0", "websocket-client", "requests"],
}


def measure(requirements: list[str]) -> tuple[int, int]:
    """Install into an empty environment; return the number of packages and MB."""
    with tempfile.TemporaryDirectory(prefix="comfypin-size-") as folder:
        environment = Path(folder, "env")
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", environment, *requirements], check=True)
        files = [path for path in environment.rglob("*") if path.is_file() and not path.is_symlink()]
        size_bytes = sum(path.stat().st_size for path in files if path.suffix != ".pyc")
        packages = len(list(environment.glob("lib/python*/site-packages/*.dist-info")))
        return packages, round(size_bytes / 1e6)


def build_wheel(folder: Path) -> Path:
    """Build comfypin's wheel."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, PROJECT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def label_of(name: str, *, is_russian: bool) -> str:
    """Return what the row of an extra or a peer begins with."""
    if name.startswith("["):
        return f"{'с' if is_russian else 'with'} `{name}`"
    if name == "worker-comfyui":
        return "обработчик worker-comfyui" if is_russian else "worker-comfyui's handler"
    return name or "comfypin"


def write_row(text: str, label: str, packages: int, size_mb: int) -> str:
    """Return a page whose row that begins with `label` has these figures. Raises `ValueError` if it has none."""
    changed, count = re.subn(
        rf"^(\| {re.escape(label)}[^|]*\|).*$",
        lambda row: f"{row[1]} {packages} | {size_mb} |",
        text,
        flags=re.MULTILINE,
    )
    if count != 1:
        raise ValueError(f"{count} rows begin with {label!r}")
    return changed


def main() -> int:
    """Measure all, and write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[*_OURS, *_PEERS], metavar="NAME")
    wanted = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="comfypin-wheel-") as folder:
        wheel = build_wheel(Path(folder))
        found = {extra: measure([f"{wheel}{extra}"]) for extra in _OURS if extra in wanted}
    found |= {name: measure(requirements) for name, requirements in _PEERS.items() if name in wanted}
    for page in PAGES:
        text = page.read_text()
        for name, (packages, size_mb) in found.items():
            text = write_row(text, label_of(name, is_russian=page.parent.name == "ru"), packages, size_mb)
        page.write_text(text)
    for name, (packages, size_mb) in found.items():
        print(f"{name or 'comfypin':<16} {packages:4} packages {size_mb:5} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
