"""How clients reach `comfypin serve`, and what lets them in: its ports, its addresses, its token."""

import argparse
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError
from comfypin.settings.server import ServerSettings

if TYPE_CHECKING:
    from comfypin.server.sessions import Sessions

DEFAULT_PORT = 8000
# Only these cannot be reached from elsewhere.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """How clients reach the server: `public_url` if it is known, else `base_url`; `prefix` is a proxy's path."""

    public_url: str | None
    base_url: str
    prefix: str


def choose_ports(arguments: argparse.Namespace, server_settings: ServerSettings) -> list[int]:
    """Return the port of the API, and the one for health checks if the platform names another."""
    api_port = server_settings.port if arguments.port is None else arguments.port
    ports = [DEFAULT_PORT if api_port is None else api_port]
    if server_settings.health_port:
        ports.append(server_settings.health_port)
    # Numbers above 65535 stand for symmetrical ports: Runpod chooses the real ones when the pod starts.
    return [server_settings.listening_port(port) for port in ports]


def choose_token(
    arguments: argparse.Namespace, server_settings: ServerSettings, state_folder: Path, address: str
) -> tuple[str | None, bool]:
    """Return the token that clients must send, and whether it was made now.

    It is COMFYPIN_TOKEN, else the one generated at the first start.
    """
    from comfypin.atomic_files import write_atomically
    from comfypin.machine_errors import reason_of
    from comfypin.queue.errors import JobsUnusable
    from comfypin.server.errors import ServerUnsafe

    if arguments.no_auth:
        if address not in _LOOPBACK:
            raise ServerUnsafe(
                f"--no-auth would open {address} to everybody who can reach it; leave it out, or use --host 127.0.0.1."
            )
        return None, False
    if server_settings.token is not None:
        return server_settings.token, False
    token_path = state_folder / "token"
    if (kept_token := _read_kept_token(token_path)) is not None:
        return kept_token, False
    token = secrets.token_urlsafe(32)
    new_file = token_path.with_name(f".token.{secrets.token_hex(6)}.tmp")
    try:
        # Whole or absent: a token that met a full disk must not be an empty one at the next start.
        write_atomically(new_file, f"{token}\n".encode(), mode=0o600)
        # Unlike a rename, a link fails if the file exists, so two servers agree on one token.
        os.link(new_file, token_path)
    except FileExistsError:
        return choose_token(arguments, server_settings, state_folder, address)  # another server was first
    except OSError as exc:
        raise JobsUnusable(path=str(state_folder), reason=reason_of(exc)) from exc
    finally:
        new_file.unlink(missing_ok=True)
    # Printed, not logged: logs are often sent elsewhere.
    print(f"Token (made now, kept in {token_path}): {token}", file=sys.stderr, flush=True)
    return token, True


def print_sign_in_link(sessions: "Sessions", base_url: str, *, is_first_start: bool) -> None:
    """Print a link that signs one browser in: at the first start, and at every start in a terminal.

    Whoever sits at a terminal may have lost the first link, and a first start that fails takes its link with it.
    """
    if not is_first_start and not sys.stderr.isatty():
        return
    # Printed, not logged: logs are often sent elsewhere. After the #, so that no proxy logs it either.
    link = f"{base_url}/#link={sessions.make_link_code()}"
    print(f"Sign a browser in (once, within the hour): {link}", file=sys.stderr, flush=True)


def _read_kept_token(token_path: Path) -> str | None:
    from comfypin.server.errors import ServerUnsafe

    try:
        kept_token = token_path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    if not kept_token:
        raise ServerUnsafe(
            f"{token_path} is empty; remove it, and the next start makes a new token, or set COMFYPIN_TOKEN."
        )
    return kept_token


def read_root_path(given_path: str) -> str:
    """Return the path of --root-path as a prefix, empty without one. Raises `UsageError`."""
    from comfypin.server.prefix import valid_prefix

    prefix = valid_prefix(given_path if given_path.startswith("/") or not given_path else f"/{given_path}")
    if given_path.strip("/") and not prefix:
        raise UsageError(f"--root-path {given_path!r} is not a path such as /comfy.")
    return prefix


def find_public_url(server_settings: ServerSettings, port: int) -> str | None:
    """Return how clients reach the server, if that is known."""
    if server_settings.public_url:
        return server_settings.public_url
    if server_settings.endpoint_id:
        # A worker behind a load balancer: its own port is not for clients.
        return f"https://{server_settings.endpoint_id}.api.runpod.ai"
    if server_settings.pod_id:
        # Runpod's proxy gives each port of a pod a host name.
        return f"https://{server_settings.pod_id}-{port}.proxy.runpod.net"
    return None


def local_url(address: str, port: int) -> str:
    """Return the URL of an address of this machine."""
    # An IPv6 address needs brackets in a URL.
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"
