"""A Docker daemon of the tests' own, with a base image made here, and a registry: nothing outside is asked."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.support.nginx import free_port

BASE = "python:3.11-slim-bookworm"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")
# Given to a build, and looked for in what must not hold it.
SECRET = "hf_a-token-that-must-stay-outside"
_PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates,git,binutils"
_NOT_NEEDED = ("doc", "man", "locale", "info")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Containers:
    """The daemon's clients, and comfypin beside them."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)

    def docker(self, *words: str, timeout_s: float = 120, check: bool = True) -> str:
        return self._run(["/usr/bin/docker", *words], self.environ, timeout_s, check=check).stdout

    def all_logs(self, name: str) -> str:
        """What a container has printed, on both streams."""
        done = self._run(["/usr/bin/docker", "logs", name], self.environ, 60, check=True)
        return done.stdout + done.stderr

    def run(self, *words: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker run --rm --network=none` with these words."""
        command = ["/usr/bin/docker", "run", "--rm", "--network=none", *words]
        return self._run(command, self.environ, timeout_s, check=check)

    def program(self, *command: str) -> str:
        """What another program that works with containers says."""
        return self._run(command, self.environ, 300, check=True).stdout

    def comfypin(
        self, *words: str, environ: Mapping[str, str] | None = None, cwd: Path = ROOT, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "comfypin.cli.main", *words]
        return self._run(command, {**self.environ, **(environ or {})}, 400, check=check, cwd=cwd)

    def build(self, *words: str, environ: Mapping[str, str] | None = None, cwd: Path = ROOT) -> dict[str, object]:
        """`comfypin image build --json` here: on the host's network, and with its certificates for the build alone."""
        secret = ["--secret", f"id=ca,src={_CERTIFICATES}"] if _CERTIFICATES.is_file() else []
        here = ["--network", "host", *secret, "--json"]
        done = self.comfypin("image", "build", *words, *here, environ=environ, cwd=cwd)
        return dict(json.loads(done.stdout))

    def inspect(self, what: str) -> dict[str, object]:
        return dict(json.loads(self.docker("inspect", what))[0])

    def _run(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        timeout_s: float,
        *,
        check: bool,
        cwd: Path = ROOT,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, capture_output=True, text=True, env=dict(environ), timeout=timeout_s, check=False, cwd=cwd
        )
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done


def assert_no_secret(daemon: Containers, tag: str, saved: Path) -> None:
    """What `docker save` writes holds the secret nowhere, in no layer and no history, and no trace of its mounts."""
    daemon.docker("save", "--output", str(saved), tag)
    with tarfile.open(saved) as outer:
        for member in outer:
            data = outer.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            assert SECRET.encode() not in data, member.name
            # A layer that stands twice is a link the second time.
            if member.isfile() and member.name.endswith("layer.tar"):
                with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                    names = layer.getnames()
                assert not [name for name in names if name.startswith("run/secrets")]
                assert not [name for name in names if "root/.cache" in name]
    saved.unlink()


@contextlib.contextmanager
def containers(folder: Path) -> Iterator[Containers]:
    """Start the daemon, and bring the base image; all of it is gone afterwards."""
    folder.mkdir(parents=True)
    socket = f"unix://{folder}/d.sock"
    where = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    dockerd = shutil.which("dockerd") or "/usr/sbin/dockerd"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [dockerd, "--host", socket, *where, "--iptables=false", "--bridge=none"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        home = folder / "home"
        home.mkdir()
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER", "RUNPOD"))}
        path = f"/usr/sbin:/usr/bin:{outside['PATH']}"
        client = Containers(folder, {**outside, "DOCKER_HOST": socket, "DOCKER_CONFIG": str(home), "PATH": path})
        _await(lambda: client._run(["/usr/bin/docker", "version"], client.environ, 30, check=False).returncode == 0)
        _bring_base(client)
        yield client
    finally:
        daemon.terminate()
        daemon.wait(60)
        # The daemon leaves its host network's namespace mounted, and nothing below a mount can be removed.
        subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _bring_base(client: Containers) -> None:
    """Debian with Python, under the name of the real base image, which cannot be fetched here."""
    # Nobody reads the manuals, and whatever a crash would leave half written is thrown away: unpacking need not sync.
    fast = ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _NOT_NEEDED)]
    words = ["mmdebstrap", "--quiet", "--variant=minbase", *fast, f"--include={_PACKAGES}", "bookworm"]
    client.docker("import", "--change", 'CMD ["bash"]', str(_kept_base(client, words)), BASE)


def _kept_base(client: Containers, words: Sequence[str]) -> Path:
    """The base's archive, made once a week on a machine: that takes from one minute to seven."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comfypin-tests"
    key = hashlib.sha256(" ".join([*words, time.strftime("%G-%V")]).encode()).hexdigest()[:16]
    kept = folder / f"base-{key}.tar"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"making-{os.getpid()}.tar"
        try:
            client._run([*words, str(made)], client.environ, 800, check=True)
            for older in folder.glob("base-*.tar"):
                older.unlink(missing_ok=True)
            made.rename(kept)
        finally:
            made.unlink(missing_ok=True)
    return kept


@contextlib.contextmanager
def buildah(client: Containers, folder: Path) -> Iterator[Containers]:
    """A machine that has buildah and no docker that answers, with the same base image."""
    folder.mkdir(parents=True)
    config, base = folder / "storage.conf", folder / "base.tar"
    config.write_text(f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/data"\n')
    outside = {name: value for name, value in client.environ.items() if not name.startswith("DOCKER")}
    where = {"CONTAINERS_STORAGE_CONF": str(config), "BUILDAH_ISOLATION": "chroot", "DOCKER_HOST": "unix:///nowhere"}
    other = Containers(folder, {**outside, **where})
    client.docker("save", "--output", str(base), BASE)
    try:
        other.program("buildah", "pull", "--quiet", f"docker-archive:{base}")
        base.unlink()
        yield other
    finally:
        other.program("buildah", "rm", "--all")
        for mounted in ("data/overlay", "run"):
            subprocess.run(["umount", "--quiet", folder / mounted], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def files_over_http(folder: Path) -> Iterator[str]:
    """A plain server of a folder's files: its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def registry(folder: Path, *, htpasswd: str | None = None) -> Iterator[str]:
    """A registry on loopback: `127.0.0.1:<port>`."""
    folder.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    auth = ""
    if htpasswd is not None:
        (folder / "htpasswd").write_text(f"{htpasswd}\n")
        auth = f"auth:\n  htpasswd:\n    realm: here\n    path: {folder}/htpasswd\n"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\n"
        f"http:\n  addr: {address}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        _await(lambda: _listens(address))
        yield address
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _listens(address: str) -> bool:
    import socket

    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _await(is_so: "object", within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came up"
        time.sleep(0.1)
