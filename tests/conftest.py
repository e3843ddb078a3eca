"""What all tests share: system tools that may be missing, recordings that a user's clone does not have, soak tests."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.object_servers import (
    AzureServer,
    GcsServer,
    S3Server,
    azure_server,
    gcs_server,
    moto_server,
    rclone_server,
)

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
# The machines are shared: a slow example says nothing about the code.
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

# A developer's proxy does not stand before the tests' own servers.
PAST_PROXIES = ",".join(
    filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "localhost,127.0.0.1,::1"])
)
if any(name.lower().endswith("_proxy") for name in os.environ):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = PAST_PROXIES

REQUIRE_ALL = os.environ.get("COMFYPIN_REQUIRE_ALL") == "1"

# Tool -> the command that brings it; `needs("nginx")` on a test refers to these.
TOOLS = {
    "nginx": "apt-get install nginx-light",
    "unshare": "apt-get install util-linux",
    "dockerd": "apt-get install docker.io",
    "docker-registry": "apt-get install docker-registry",
    "mmdebstrap": "apt-get install mmdebstrap",
    "buildah": "apt-get install buildah",
    "podman": "apt-get install podman",
    "skopeo": "apt-get install skopeo",
    "chromium": "apt-get install chromium",
    "faketime": "apt-get install faketime",
    "azurite": "npm install --global azurite",
    "npm": "apt-get install nodejs npm",
    "zsh": "apt-get install zsh",
    "fish": "apt-get install fish",
    "jq": "apt-get install jq",
}


# A shell's nohup leaves this ignored for all its children; tests of what it does to ours need it as it comes.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the long soak and kill tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        kept = [item for item in items if item.get_closest_marker("soak") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    if not (os.environ.get("COMFYUI_DIR") or os.environ.get("COMFYUI_URL")):
        # A real ComfyUI is brought by `make test-comfyui`, never by the plain run, so this is a choice, not a skip.
        kept = [item for item in items if item.get_closest_marker("comfyui") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require_tool(str(marker.args[0]))


def require_tool(tool: str) -> None:
    """Skip the test if a tool is missing; fail it where everything is required."""
    if shutil.which(tool) is None and not Path("/usr/sbin", tool).exists():
        reason = f"needs {tool}: {TOOLS[tool]}"
        pytest.fail(reason, pytrace=False) if REQUIRE_ALL else pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text] = reasons.get(text, 0) + 1
    if reasons:
        terminalreporter.section("skipped here, and what would bring it")
        for text, count in sorted(reasons.items()):
            terminalreporter.line(f"{count:4} x {text.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def captures() -> Path:
    """The recordings of a real ComfyUI that lie beside a checkout of ours, not in a user's clone."""
    return shared_path("captures")


@pytest.fixture(scope="session")
def http_recordings() -> Path:
    """Each request to a real ComfyUI 0.3.64 with its whole answer, and the websocket's messages of whole runs."""
    return ROOT / "tests" / "data" / "http"


@pytest.fixture(scope="session")
def field_locks() -> Path:
    """Lock files as they exist in the field, beside a checkout of ours."""
    return shared_path("locks")


def shared_path(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        reason = f"needs the recordings in ../shared/{name}, which only the developers' checkouts have"
        pytest.fail(reason, pytrace=False) if REQUIRE_ALL else pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """An S3 server of this worker's own; every test makes its own bucket."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Another S3 server, which checks signatures."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """An Azure server of this worker's own; every test makes its own container."""
    require_tool("azurite")
    with azure_server(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A GCS server of this worker's own; every test makes its own bucket."""
    with gcs_server() as server:
        yield server
