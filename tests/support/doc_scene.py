"""Where the commands of a page are typed: a home with a ComfyUI in it, a folder with the files that pages name.

The ComfyUI is a git checkout whose main.py takes a real one's arguments and is the embedded engine, so commands that
start one, capture it or realize its lock do so for real.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from comfypin.digest import Digest
from comfypin.lock.codec import render_lock
from comfypin.lock.model import Lock, ModelPin, PackagePin, PythonPins, RepoPin
from comfypin.tools.uv import run_uv
from tests.conftest import ROOT
from tests.support.nginx import free_port
from tests.support.releases import CLI_ARGS, MAIN, Repo, comfyui_files, make_wheel

TOKEN = "..."  # as pages write it
# The ports that pages name; each becomes a free one, since tests run beside each other.
PORTS = ("8000", "8001", "8188", "4222")
# Node 6 has a text, and the node called KSampler a seed, as in most people's workflows.
PORTRAIT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}},
    "3": {"class_type": "PrimitiveInt", "inputs": {"value": 1, "seed": 1}, "_meta": {"title": "KSampler"}},
    "6": {"class_type": "PrimitiveString", "inputs": {"value": "", "text": "a cat"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "portrait"}},
}
UPLOADED = {
    "10": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "uploaded"}},
}
MINE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"}},
}
# Folders that pages name by their place on a server lie in the scene.
FOLDERS = re.compile(
    r"(?:^|(?<=[\s=\"']))/(?=(?:opt/comfy|volume|var/lib|models|nvme|runpod-volume|workspace|tmp)/?\b)"
)
# Typed before the blocks of a page. What a reader stops with Ctrl-C before the next block is stopped here: a server
# goes into the background, is waited for, and makes way for the next one at its port; a stream that has no end is read
# for a moment.
PRELUDE = """
set -euo pipefail
comfypin() {
    if [ "$1" != serve ]; then command comfypin "$@"; return; fi
    local port=$PORT_8000 word last= server
    for word in "$@"; do [ "$last" != --port ] || port=$word; last=$word; done
    if [ -e "$SERVERS/$port" ]; then
        kill "$(cat "$SERVERS/$port")"
        while kill -0 "$(cat "$SERVERS/$port")" 2>/dev/null; do sleep 0.1; done
    fi
    command comfypin "$@" >>"$SERVERS/log" 2>&1 &
    echo $! >"$SERVERS/$port"
    until [ "$(command curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/ping")" = 200 ]; do
        kill -0 "$(cat "$SERVERS/$port")" || { cat "$SERVERS/log" >&2; return 1; }
        sleep 0.1
    done
}
curl() {
    case "$*" in
        *-sN*/events?previews=0*) { command curl --max-time 2 "$@" || true; } | grep . ;;
        *) command curl --fail-with-body "$@" ;;
    esac
}
nats-server() { command nats-server -a 127.0.0.1 -p "$PORT_4222" "$@"; }
export PORT=$PORT_8000
"""


@dataclass(frozen=True)
class Scene:
    """A folder to type in, with the variables that the commands see."""

    folder: Path
    environ: dict[str, str]
    ports: dict[str, str]

    def adapt(self, text: str) -> str:
        """Return a block with this scene's ports and folders."""
        for port, free in self.ports.items():
            text = text.replace(f":{port}", f":{free}").replace(f"--port {port}", f"--port {free}")
        return adapt_folders(text, self.folder.parent)

    def type_blocks(self, blocks: list[tuple[str, str]], *, before: str = "") -> tuple[int, str]:
        """Type blocks, each with its place, into one shell, and return its exit code and what was printed.

        The shell ends at the first command that fails, and whatever it started ends with it.
        """
        script = [PRELUDE, before]
        for place, text in blocks:
            script += [f"echo '== {place}' >&2", text]
        path, printed = self.folder.parent / "typed.sh", self.folder.parent / "printed"
        path.write_text(self.adapt("\n".join(script)))
        # A file, since a server that is still there would hold a pipe open.
        with printed.open("w") as file:
            shell = subprocess.Popen(
                ["bash", str(path)],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                exit_code = shell.wait(timeout=300)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGTERM)
        return exit_code, printed.read_text()


def adapt_folders(text: str, root: Path) -> str:
    """Return a text whose folders of a server lie below `root`."""
    return FOLDERS.sub(f"{root}/", text)


@contextlib.contextmanager
def make_scene(root: Path, *, releases: tuple[str, ...], environ: dict[str, str]) -> Iterator[Scene]:
    """Make the home, the folder and what lies in it; `releases` are the locks that it has.

    The ComfyUI has one package, since a lock of none is an error; it is from an address that is served meanwhile.
    """
    wheels = root / "wheels"
    _make_package(wheels)
    with _serve(wheels) as served:
        yield _make_scene(root, served, releases=releases, environ=environ)


@contextlib.contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield the address of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads what was asked for."""


def _make_scene(root: Path, served: str, *, releases: tuple[str, ...], environ: dict[str, str]) -> Scene:
    home, folder = root / "home", root / "work"
    remote = _make_comfyui(root / "remote")
    home.mkdir()
    run_uv(["venv", "--quiet", "--python", sys.executable, root / "venv"])
    wheel = f"alpha @ {served}/alpha-1.0-py3-none-any.whl"
    installed = run_uv(["pip", "install", "--quiet", "--no-deps", wheel, "--python", root / "venv"])
    assert installed.exit_code == 0, installed.stderr
    remote.git("clone", "--quiet", remote.url, str(home / "ComfyUI"))
    (root / "venv").rename(home / "ComfyUI" / ".venv")
    folder.mkdir()
    _write_files(folder)
    for name in releases:
        _write_lock(folder, name, remote)
    ports = {port: str(free_port()) for port in PORTS}
    servers = root / "servers"
    servers.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COMFY", "GCS", "S3", "AWS", "RUNPOD"))
    }
    return Scene(
        folder=folder,
        ports=ports,
        environ={
            **kept,
            "HOME": str(home),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
            "COMFY_HOME": str(home / "ComfyUI"),
            "COMFYPIN_TOKEN": TOKEN,
            "TOKEN": TOKEN,
            "SERVERS": str(servers),
            **{f"PORT_{port}": free for port, free in ports.items()},
            **{name: adapt_folders(value, root).replace("~", str(home)) for name, value in environ.items()},
        },
    )


def _make_package(wheels: Path) -> PackagePin:
    return make_wheel(wheels, "alpha", "1.0", {"alpha/__init__.py": "VALUE = 1\n"})


def _make_comfyui(folder: Path) -> Repo:
    """Make the repository of a ComfyUI that is the embedded engine."""
    words = f'[{sys.executable!r}, "-m", "comfypin.engine.embedded", *sys.argv[1:]]'
    engine = f"os.execv({sys.executable!r}, {words})"
    repo = Repo(folder / "ComfyUI")
    repo.commit(
        {
            **comfyui_files(),
            "main.py": MAIN.replace('print("serving")', engine),
            "comfy/cli_args.py": CLI_ARGS.replace("parse_args()", "parse_known_args()[0]"),
            "comfyui_version.py": '__version__ = "0.3.64"\n',
            ".gitignore": ".venv/\n__pycache__/\n/models/\n/output/\n/input/\n/temp/\n/user/\n",
        }
    )
    repo.git("tag", "v0.3.64")
    return repo


def _write_files(folder: Path) -> None:
    Image.new("RGB", (64, 48), (120, 80, 40)).save(folder / "photo.jpg")
    Image.new("RGB", (64, 48), (120, 80, 40)).save(folder / "photo.png")
    (folder / "prompts.txt").write_text("a cat\na dog in the snow\n")
    (folder / "workflows").mkdir()
    workflows = {
        "portrait.json": PORTRAIT,
        "workflows/portrait.json": MINE,
        "my-workflow.json": MINE,
        "workflow_api.json": UPLOADED,
        "clip.json": MINE,
        "cat.json": MINE,
        "w.json": MINE,
    }
    for name, graph in workflows.items():
        (folder / name).write_text(json.dumps(graph))
    (folder / "lockfiles").mkdir()
    (folder / "lockfiles" / "comfy-demo.lock.json").write_bytes((ROOT / "lockfiles/comfy-demo.lock.json").read_bytes())


def _write_lock(folder: Path, name: str, remote: Repo) -> None:
    """Write a lock of the ComfyUI, with a model that lies on this machine."""
    model = folder.parent / "models" / "small.safetensors"
    model.parent.mkdir(exist_ok=True)
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    model.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    package = _make_package(folder.parent / "wheels")
    lock = Lock(
        version_name=name,
        comfyui=RepoPin(repo=remote.url, commit=remote.git("rev-parse", "HEAD"), ref="v0.3.64"),
        python=PythonPins(version=f"{sys.version_info.major}.{sys.version_info.minor}", packages=(package,)),
        models=(
            ModelPin(
                name="small",
                target_path="$MODELS_DIR/vae/small.safetensors",
                sha256=Digest.of_file(model),
                size_bytes=model.stat().st_size,
                sources=(model.as_uri(),),
            ),
        ),
    )
    (folder / "lockfiles" / f"comfy-{name}.lock.json").write_bytes(render_lock(lock))
