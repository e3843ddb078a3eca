"""Machines with an address of their own on this one: network namespaces, whose cables can be pulled.

What is sent to a pulled cable is swallowed, as by a switch that lost power: nobody is told that a connection is gone.
"""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence


class Cable:
    """A namespace on the bridge. `prefix` stands before commands that are to run there."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.prefix: Sequence[str] = ("ip", "netns", "exec", name)

    def pull(self) -> None:
        """Cut the namespace off from all others."""
        _ip("link", "set", f"v{self.name}", "down")

    def plug(self) -> None:
        """Connect it again."""
        _ip("link", "set", f"v{self.name}", "up")


def can_make_networks() -> bool:
    """Whether this process may make network namespaces."""
    if os.getuid() != 0:
        return False
    name = f"cp{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip("netns", "delete", name)
    return made


@contextlib.contextmanager
def network(machines: int) -> Iterator[tuple[str, list[Cable]]]:
    """Namespaces on one bridge, which this process reaches, too; yields its own address there, and them."""
    tag = secrets.token_hex(3)
    bridge, subnet = f"b{tag}", f"10.{int(tag[:2], 16)}.{int(tag[2:4], 16)}"
    cables = [Cable(f"{tag}{number}", f"{subnet}.{number + 1}") for number in range(machines)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{subnet}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for cable in cables:
            _connect(cable, bridge)
        yield f"{subnet}.254", cables
    finally:
        for words in [*(("netns", "delete", cable.name) for cable in cables), ("link", "delete", bridge)]:
            subprocess.run(["ip", *words], capture_output=True, check=False)


def _connect(cable: Cable, bridge: str) -> None:
    inside = ("-n", cable.name)
    _ip("netns", "add", cable.name)
    _ip("link", "add", f"v{cable.name}", "type", "veth", "peer", "name", "eth0", "netns", cable.name)
    _ip("link", "set", f"v{cable.name}", "master", bridge, "up")
    _ip(*inside, "address", "add", f"{cable.host}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "link", "set", "lo", "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
