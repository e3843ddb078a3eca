"""One hostile request: the bytes that are sent, and the outcomes that are right for it.

In the bytes `@PORT@` is the server's port, `@TRAP@` that of a listener on loopback that nothing may reach, `@TOKEN@`
the server's token. An outcome is a status (`404`), a family of them (`4xx`), the end of a job (`FAILED`, `COMPLETED`),
`closed` (the connection, without a word) or `waits` (the server waits for the rest, as its limits of time allow).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

Header = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A request of one kind. `sends` are written one after the other; `right` are the outcomes that are right."""

    kind: str
    name: str
    sends: tuple[bytes, ...]
    right: frozenset[str]

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    def allows(self, outcome: str) -> bool:
        """Return whether the outcome is right."""
        return outcome in self.right or (outcome.isdigit() and f"{outcome[0]}xx" in self.right)


def raw(kind: str, name: str, right: str, *sends: bytes) -> Hostile:
    """Return a request that is written as it stands; `right` are outcomes, with spaces between."""
    return Hostile(kind=kind, name=name, sends=sends, right=frozenset(right.split()))


def plain(
    kind: str,
    name: str,
    right: str,
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    headers: Sequence[Header] = (),
    without: Sequence[str] = (),
) -> Hostile:
    """Return an ordinary request; `headers` replace those of a client or are added to it, `without` leaves some out."""
    usual = {"Host": "127.0.0.1:@PORT@", "Authorization": "Bearer @TOKEN@", "Connection": "close"}
    if body is not None:
        usual |= {"Content-Type": "application/json", "Content-Length": "@LENGTH@"}
    given = {header.lower() for header, _ in headers}
    lines = [(key, value) for key, value in usual.items() if key not in without and key.lower() not in given]
    head = "".join(f"{key}: {value}\r\n" for key, value in [*lines, *headers])
    whole = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape")
    return raw(kind, name, right, whole + (body or b""))


def job(kind: str, name: str, right: str, wish: object, **beside: object) -> Hostile:
    """Return a job that is sent to /runsync; `beside` are the fields beside its input."""
    body = json.dumps({"input": wish, **beside}).encode()
    return plain(kind, name, right, "POST", "/runsync", body=body)
