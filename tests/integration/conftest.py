"""What several modules here share: a Docker daemon of the tests' own, and an image that it has built."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.containers import BASE, SECRET, Containers, containers


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """It runs once: every module that asks for it is in the group `containers`."""
    with containers(tmp_path_factory.mktemp("docker") / "d") as running:
        yield running


@pytest.fixture(scope="session")
def demo(daemon: Containers) -> dict[str, Any]:
    """What building the demo release's image says; its tag is `demo:1`."""
    secret = ("--secret", "id=HF_TOKEN,env=HF_TOKEN")
    words = ("--release", "demo", "--tag", "demo:1", "--base", BASE, *secret)
    return dict(daemon.build(*words, environ={"HF_TOKEN": SECRET}))
