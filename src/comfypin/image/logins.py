"""Reads credentials that `docker login` and its like have stored in a file, or with a helper program."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.image.registry_login import Credential
from comfypin.tools.errors import ToolMissing, ToolTimedOut
from comfypin.tools.process import run_program

VARIABLES = ("HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR")
_DOCKER_HUB_NAMES = ("https://index.docker.io/v1/", "docker.io", "index.docker.io")
# What helpers answer as the user's name where the secret is a token that only docker itself can exchange.
_TOKEN_USER = "<token>"  # noqa: S105 - a placeholder


def stored_credential(registry: str, variables: Mapping[str, str]) -> Credential | None:
    """Return the credential stored for a registry, or None if there is none that can be read."""
    names = _DOCKER_HUB_NAMES if registry == "docker.io" else (registry, f"https://{registry}")
    # The first file with a login wins, as the tools themselves do.
    for path in list_login_files(variables):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and (found := _find_in_config(config, names, str(path))) is not None:
            return found
    return None


def list_login_files(variables: Mapping[str, str]) -> Sequence[Path]:
    """Return the files of stored logins: docker's, then those of buildah and podman."""
    home = Path(variables.get("HOME", "/root"))
    files = [Path(variables.get("DOCKER_CONFIG") or home / ".docker") / "config.json"]
    if "REGISTRY_AUTH_FILE" in variables:
        files.append(Path(variables["REGISTRY_AUTH_FILE"]))
    if "XDG_RUNTIME_DIR" in variables:
        files.append(Path(variables["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    return [*files, Path("/run/containers/0/auth.json"), home / ".config" / "containers" / "auth.json"]


def _find_in_config(config: Mapping[str, object], names: Sequence[str], source: str) -> Credential | None:
    helpers, auths = config.get("credHelpers"), config.get("auths")
    for name in names:
        helper = helpers.get(name) if isinstance(helpers, dict) else None
        # A helper for one registry goes before the general one.
        helper = helper or config.get("credsStore")
        if isinstance(helper, str) and (found := _ask_helper(helper, name)) is not None:
            return found
        entry = auths.get(name) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("auth"), str):
            try:
                user, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                continue
            if colon:
                return Credential(user, password, source)
    return None


def _ask_helper(helper: str, name: str) -> Credential | None:
    """Ask a credential helper; https://github.com/docker/docker-credential-helpers#development"""
    program = f"docker-credential-{helper}"
    try:
        done = run_program([program, "get"], timeout_s=60, stdin=name.encode())
        said = json.loads(done.stdout) if done.exit_code == 0 else {}
    # A helper of the desktop does not work in a container; a login in the file may.
    except (ToolMissing, ToolTimedOut, ValueError):
        return None
    user, secret = said.get("Username"), said.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str) or user == _TOKEN_USER:
        return None
    return Credential(user, secret, program)
