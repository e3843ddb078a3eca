"""Releases to realize in tests: real git repositories behind file://, and real wheels made on the spot."""

import base64
import hashlib
import subprocess
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.digest import Digest
from comfypin.lock.codec import render_lock
from comfypin.lock.model import Lock, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.tools.uv import run_uv

PYTHON = "3.11"

MAIN = """
import argparse, importlib.util, logging, os, sys
import folder_paths
from comfy.cli_args import args
import nodes

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    here = os.path.join(os.path.dirname(os.path.realpath(__file__)), "custom_nodes")
    for name in sorted(os.listdir(here)):
        if os.path.isdir(os.path.join(here, name)) and name != "__pycache__":
            nodes.load_custom_node(os.path.join(here, name))
    if args.quick_test_for_ci:
        sys.exit(0)
    print("serving")
"""
CLI_ARGS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--quick-test-for-ci", action="store_true")
parser.add_argument("--cpu", action="store_true")
parser.add_argument("--user-directory")
args = parser.parse_args()
"""
NODES = """
import importlib.util, logging, os, sys
LOADED_MODULE_DIRS = {}
def load_custom_node(path):
    try:
        spec = importlib.util.spec_from_file_location(path.replace(".", "_x_"), os.path.join(path, "__init__.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.replace(".", "_x_")] = module
        spec.loader.exec_module(module)
        LOADED_MODULE_DIRS[os.path.basename(path)] = path
    except Exception as e:
        logging.warning(f"Cannot import {path} module for custom nodes: {e}")
"""
FOLDER_PATHS = """
import os
models_dir = os.path.join(os.path.dirname(os.path.realpath(__file__)), "models")
folder_names_and_paths = {
    "checkpoints": ([os.path.join(models_dir, "checkpoints")], set()),
    "text_encoders": ([os.path.join(models_dir, "text_encoders"), os.path.join(models_dir, "clip")], set()),
    "custom_nodes": ([os.path.join(os.path.dirname(models_dir), "custom_nodes")], set()),
}
"""


@dataclass(frozen=True)
class Repo:
    """A git repository for tests; its URL is file://."""

    folder: Path

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | bytes | None], message: str = "change") -> str:
        """Write files (None deletes one), commit them, and return the commit."""
        if not (self.folder / ".git").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.git("init", "--quiet", "--initial-branch=main")
        for name, content in files.items():
            path = self.folder / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def comfyui_files(requirements: str = "") -> dict[str, str]:
    """A ComfyUI of our own making: it loads nodes and says so as the real one does."""
    return {
        "main.py": MAIN,
        "nodes.py": NODES,
        "folder_paths.py": FOLDER_PATHS,
        "comfy/__init__.py": "",
        "comfy/cli_args.py": CLI_ARGS,
        "requirements.txt": requirements,
        "custom_nodes/example_node.py.example": "",
        "models/checkpoints/put_checkpoints_here": "",
    }


def make_wheel(folder: Path, name: str, version: str, modules: Mapping[str, str]) -> PackagePin:
    """Build a small pure wheel and return its pin, with a file:// URL."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        **{module: text.encode() for module, text in modules.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{file},sha256={_record(data)},{len(data)}" for file, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(file), data)
    return PackagePin(name=name, version=version, url=path.as_uri(), sha256=(Digest.of_file(path),))


def _record(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass(frozen=True)
class SmallRelease:
    """A release of two nodes and three packages, that needs no network at all."""

    root: Path
    comfyui: Repo
    nodes: Mapping[str, Repo]
    lock: Lock

    def changed(self, **changes: object) -> "SmallRelease":
        return replace(self, lock=replace(self.lock, **changes))

    def write_lock(self) -> Path:
        path = self.root / f"comfy-{self.lock.version_name}.lock.json"
        path.write_bytes(render_lock(self.lock))
        return path


def small_release(root: Path) -> SmallRelease:
    """Make the repositories, wheels and the lock."""
    wheels = root / "wheels"
    packages = (
        make_wheel(wheels, "alpha", "1.0", {"alpha/__init__.py": "VALUE = 1\n", "alpha/more.py": "MORE = 2\n"}),
        make_wheel(wheels, "beta", "2.1", {"beta.py": "import alpha\n"}),
        make_wheel(wheels, "gamma", "0.3", {"gamma/__init__.py": "x = 1\n" * 5000}),
    )
    comfyui = Repo(root / "ComfyUI")
    commit = comfyui.commit(comfyui_files("alpha\nbeta>=2\n"))
    nodes = {}
    pins = []
    for name in ("node-one", "node_two"):
        nodes[name] = Repo(root / name)
        text = "import alpha\nNODE_CLASS_MAPPINGS = {}\n"
        files = {"__init__.py": text, "lib/helper.py": "def f():\n    return 1\n", "README.md": f"# {name}\n"}
        pins.append(NodePin(name=name, repo=nodes[name].url, commit=nodes[name].commit(files), directory=name))
    lock = Lock(
        version_name="small",
        comfyui=RepoPin(repo=comfyui.url, commit=commit),
        custom_nodes=tuple(pins),
        python=PythonPins(version=PYTHON, packages=packages),
    )
    return SmallRelease(root=root, comfyui=comfyui, nodes=nodes, lock=lock)


def resolve_from_pypi(requirements: Sequence[str]) -> tuple[PackagePin, ...]:
    """What uv resolves from the real registry, as pins with the wheel that fits this machine."""
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    order = {tag: index for index, tag in enumerate(sys_tags())}
    arguments = ["pip", "compile", "--quiet", "--format", "pylock.toml", "--python-version", PYTHON]
    done = run_uv([*arguments, "--only-binary", ":all:", "-"], stdin="\n".join(requirements).encode())
    assert done.exit_code == 0, done.stderr
    pins = []
    for package in tomllib.loads(done.stdout_text)["packages"]:
        ranked = []
        for wheel in package["wheels"]:
            tags = parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]
            ranked.append((min((order[tag] for tag in tags if tag in order), default=10**9), wheel["url"], wheel))
        best = min(ranked)[2]
        digest = Digest(best["hashes"]["sha256"])
        pins.append(PackagePin(name=package["name"], version=package["version"], url=best["url"], sha256=(digest,)))
    return tuple(pins)
