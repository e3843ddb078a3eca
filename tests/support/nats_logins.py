"""Logins of NATS: nkeys, and credentials of an operator's accounts, made as `nsc` makes them."""

import base64
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

from tests.conftest import ROOT

SHIPPED = ROOT / "deploy" / "fleet" / "nats.conf"


@dataclass(frozen=True)
class Key:
    """A pair of keys, as nkeys writes them."""

    seed: str
    public: str

    @classmethod
    def made(cls, prefix: int) -> "Key":
        seed = nkeys.encode_seed(os.urandom(32), prefix)
        return cls(seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode())

    def sign(self, data: bytes) -> bytes:
        return bytes(nkeys.from_seed(bytearray(self.seed.encode())).sign(data))


def user_key() -> Key:
    """The key of a user."""
    return Key.made(nkeys.PREFIX_BYTE_USER)


def shipped_permissions() -> tuple[list[str], list[str]]:
    """What the file that we ship lets a worker publish, and subscribe to."""
    worker = SHIPPED.read_text().partition('user: "worker"')[2]
    publish, _, subscribe = worker.partition("subscribe:")
    return re.findall(r'"([^"]+)"', publish), re.findall(r'"([^"]+)"', subscribe)


def permissions_block() -> str:
    """The same as part of a configuration."""
    publish, subscribe = (json.dumps(subjects) for subjects in shipped_permissions())
    return f"permissions: {{ publish: {{ allow: {publish} }}, subscribe: {{ allow: {subscribe} }} }}"


class Operator:
    """Signs accounts and users; servers trust what it has signed."""

    def __init__(self) -> None:
        self._key = Key.made(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Key.made(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = Key.made(nkeys.PREFIX_BYTE_ACCOUNT)

    def configuration(self) -> str:
        """What a server is to trust: this operator, and an account that may use JetStream."""
        operator = self._token(self._key, self._key.public, {"type": "operator", "system_account": self._system.public})
        unlimited = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
        stored = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1, "wildcards": True}
        account = self._token(self._key, self._account.public, {"type": "account", "limits": {**unlimited, **stored}})
        system = self._token(self._key, self._system.public, {"type": "account", "limits": unlimited})
        preload = f'{self._account.public}: "{account}", {self._system.public}: "{system}"'
        return f'operator: "{operator}"\nresolver: MEMORY\nresolver_preload: {{ {preload} }}\n'

    def credentials(self, path: Path, *, publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> Path:
        """Write the credentials of a user, who may do everything if nothing is named."""
        user = user_key()
        allowed = {"pub": {"allow": list(publish)}, "sub": {"allow": list(subscribe)}} if publish else {}
        limits = {"subs": -1, "data": -1, "payload": -1}
        token = self._token(self._account, user.public, {"type": "user", **limits, **allowed})
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        return path

    def _token(self, issuer: Key, subject: str, claims: Mapping[str, Any]) -> str:
        body: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": issuer.public,
            "sub": subject,
            "name": subject[:8],
            "nats": {**claims, "version": 2},
        }
        digest = hashlib.sha256(json.dumps(body).encode() + secrets.token_bytes(8)).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        text = f"{_base64({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_base64(body)}"
        return f"{text}.{_bare(issuer.sign(text.encode()))}"


def _base64(document: Mapping[str, Any]) -> str:
    return _bare(json.dumps(document, separators=(",", ":")).encode())


def _bare(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
