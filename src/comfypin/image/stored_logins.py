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


def stored_credential(registry_name: str, variables: Mapping[str, str]) -> Credential | None:
    """Return the credential stored for a registry, or None if no readable one is stored."""
    registry_names = _DOCKER_HUB_NAMES if registry_name == "docker.io" else (registry_name, f"https://{registry_name}")
    # The first file with a login wins, as the tools themselves do.
    for login_path in list_login_files(variables):
        try:
            login_config = json.loads(login_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (
            isinstance(login_config, dict)
            and (stored_login := _find_in_config(login_config, registry_names, str(login_path))) is not None
        ):
            return stored_login
    return None


def list_login_files(variables: Mapping[str, str]) -> Sequence[Path]:
    """Return the files of stored logins: docker's, then those of buildah and podman."""
    home_folder = Path(variables.get("HOME", "/root"))
    login_files = [Path(variables.get("DOCKER_CONFIG") or home_folder / ".docker") / "config.json"]
    if "REGISTRY_AUTH_FILE" in variables:
        login_files.append(Path(variables["REGISTRY_AUTH_FILE"]))
    if "XDG_RUNTIME_DIR" in variables:
        login_files.append(Path(variables["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    return [*login_files, Path("/run/containers/0/auth.json"), home_folder / ".config" / "containers" / "auth.json"]


def _find_in_config(
    login_config: Mapping[str, object], registry_names: Sequence[str], login_source: str
) -> Credential | None:
    helpers_by_name, auths_by_name = login_config.get("credHelpers"), login_config.get("auths")
    for registry_name in registry_names:
        helper_name = helpers_by_name.get(registry_name) if isinstance(helpers_by_name, dict) else None
        # A helper for one registry goes before the general one.
        helper_name = helper_name or login_config.get("credsStore")
        if isinstance(helper_name, str) and (stored_login := _ask_helper(helper_name, registry_name)) is not None:
            return stored_login
        auth_entry = auths_by_name.get(registry_name) if isinstance(auths_by_name, dict) else None
        if isinstance(auth_entry, dict) and isinstance(auth_entry.get("auth"), str):
            try:
                user_name, separator, password = base64.b64decode(auth_entry["auth"]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                continue
            if separator:
                return Credential(user_name, password, login_source)
    return None


def _ask_helper(helper_name: str, registry_name: str) -> Credential | None:
    """Ask a credential helper; https://github.com/docker/docker-credential-helpers#development"""
    helper_program = f"docker-credential-{helper_name}"
    try:
        finished = run_program([helper_program, "get"], timeout_s=60, stdin=registry_name.encode())
        helper_reply = json.loads(finished.stdout) if finished.exit_code == 0 else {}
    # A helper of the desktop does not work in a container; a login in the file may.
    except (ToolMissing, ToolTimedOut, ValueError):
        return None
    user_name, user_secret = helper_reply.get("Username"), helper_reply.get("Secret")
    if not isinstance(user_name, str) or not isinstance(user_secret, str) or user_name == _TOKEN_USER:
        return None
    return Credential(user_name, user_secret, helper_program)
