"""Logs in to registries with the environment's credentials, and pushes with retries."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.image.errors import LoginRefused, LoginUnreadable, PushFailed
from comfypin.image.image_names import registry_host
from comfypin.image.interface import ContainerBuilder, Report
from comfypin.retry import Retried, Retry, RetryPolicy
from comfypin.temp_folders import temp_folder

# Each try sends only layers that are missing, so a few are cheap.
PUSH_RETRIES = RetryPolicy(retries=3, base_s=4.0)
# Builders report why a push failed only in words: that of the registry, after their own.
_NO_REPOSITORY = re.compile(r"name[ _]unknown|(repository|project)\b.*(not exist|not found|not known)", re.I)
_NO_REPOSITORY_ADVICE = (
    "The registry has no such repository and makes none by itself: check the name, or make it there first "
    "(docs/images.md)."
)
_UNREACHABLE = re.compile(r"no such host|connection refused|no route to host|network is unreachable", re.I)
_UNREACHABLE_ADVICE = "Check the registry's name and the network, then push again."
# Builders report a refused login only in words.
_REFUSED = re.compile(r"unauthorized|denied|authentication required|no basic auth|forbidden|\b40[13]\b", re.I)
_GOOGLE = re.compile(r"(.*-docker\.pkg\.dev|(.*\.)?gcr\.io)")
_AMAZON = re.compile(r".*\.dkr\.ecr\..*\.amazonaws\.com(\.cn)?|public\.ecr\.aws")

_KEY_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_KEY_AS_JSON = "GOOGLE_APPLICATION_CREDENTIALS_JSON"
VARIABLES = (
    *("REGISTRY_USERNAME", "REGISTRY_PASSWORD", "GHCR_TOKEN", "GITHUB_TOKEN", "GITHUB_ACTOR", "DOCKERHUB_USERNAME"),
    *("DOCKERHUB_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN", _KEY_VARIABLE, _KEY_AS_JSON),
    "ECR_PASSWORD",
    *("HARBOR_USERNAME", "HARBOR_PASSWORD"),
)


@dataclass(frozen=True, slots=True)
class Credential:
    """Holds a user and password; `source` names the variable it came from, so that messages need not show it."""

    username: str
    password: str = field(repr=False)
    source: str


def find_credential(registry_name: str, variables: Mapping[str, str]) -> Credential | None:
    """Return the environment's credential for a registry; None leaves it to docker's own configuration.

    Raises `LoginUnreadable` if GOOGLE_APPLICATION_CREDENTIALS neither is nor names a key that a registry takes.
    """
    if "REGISTRY_PASSWORD" in variables:
        return Credential(
            variables.get("REGISTRY_USERNAME", "token"), variables["REGISTRY_PASSWORD"], "REGISTRY_PASSWORD"
        )
    if registry_name == "ghcr.io":
        for variable_name in ("GHCR_TOKEN", "GITHUB_TOKEN"):
            if variable_name in variables:
                return Credential(variables.get("GITHUB_ACTOR", "token"), variables[variable_name], variable_name)
    elif registry_name == "docker.io":
        if {"DOCKERHUB_USERNAME", "DOCKERHUB_TOKEN"} <= variables.keys():
            return Credential(variables["DOCKERHUB_USERNAME"], variables["DOCKERHUB_TOKEN"], "DOCKERHUB_TOKEN")
    elif _GOOGLE.fullmatch(registry_name):
        if "GOOGLE_OAUTH_ACCESS_TOKEN" in variables:
            access_token = variables["GOOGLE_OAUTH_ACCESS_TOKEN"]
            return Credential("oauth2accesstoken", access_token, "GOOGLE_OAUTH_ACCESS_TOKEN")
        for variable_name in (_KEY_AS_JSON, _KEY_VARIABLE):
            if variables.get(variable_name, "").strip():
                # https://cloud.google.com/artifact-registry/docs/docker/authentication#json-key
                google_key = _read_google_key(variable_name, variables[variable_name].strip())
                return Credential("_json_key", google_key, variable_name)
    elif _AMAZON.fullmatch(registry_name):
        if "ECR_PASSWORD" in variables:
            return Credential("AWS", variables["ECR_PASSWORD"], "ECR_PASSWORD")
    elif {"HARBOR_USERNAME", "HARBOR_PASSWORD"} <= variables.keys():
        return Credential(variables["HARBOR_USERNAME"], variables["HARBOR_PASSWORD"], "HARBOR_PASSWORD")
    return None


def _read_google_key(variable_name: str, variable_value: str) -> str:
    """Return the key that a variable holds, or names the file of, as the stores take it. Raises `LoginUnreadable`."""
    key_path = None if variable_name == _KEY_AS_JSON or variable_value.startswith("{") else variable_value
    key_text = variable_value
    if key_path is not None:
        try:
            key_text = Path(key_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            read_error = getattr(error, "strerror", None) or "it is not UTF-8 text"
            reason = f"cannot be read ({read_error})"
            raise LoginUnreadable(variable=variable_name, path=key_path, reason=reason) from error
    try:
        key_kind = json.loads(key_text).get("type", "service_account")
    except (ValueError, AttributeError, RecursionError):
        # From None: Python's error for invalid JSON holds the text, which is a secret.
        raise LoginUnreadable(variable=variable_name, path=key_path, reason="is not the JSON of a key") from None
    if key_kind != "service_account":
        raise LoginUnreadable(variable=variable_name, path=key_path, reason="is a credential of another kind")
    return key_text


def login_advice(registry_name: str) -> str:
    """Return which variable, or login, a registry expects."""
    if registry_name == "ghcr.io":
        return "set GHCR_TOKEN (a token with write:packages), or run docker login ghcr.io"
    if registry_name == "docker.io":
        return "set DOCKERHUB_USERNAME and DOCKERHUB_TOKEN, or run docker login"
    if _GOOGLE.fullmatch(registry_name):
        return "set GOOGLE_OAUTH_ACCESS_TOKEN (gcloud auth print-access-token)"
    if _AMAZON.fullmatch(registry_name):
        return "set ECR_PASSWORD (aws ecr get-login-password)"
    return f"set REGISTRY_USERNAME and REGISTRY_PASSWORD, or run docker login {registry_name}"


@contextmanager
def write_docker_config(registry_name: str, credential: Credential | None) -> Iterator[Path | None]:
    """Yield a folder with the credential as docker reads it, for as long as a push takes; never on a command line."""
    if credential is None:
        yield None
        return
    # Docker Hub's key in this file, for historical reasons.
    registry_key = "https://index.docker.io/v1/" if registry_name == "docker.io" else registry_name
    user_and_password = f"{credential.username}:{credential.password}"
    docker_config = {"auths": {registry_key: {"auth": base64.b64encode(user_and_password.encode()).decode()}}}
    with temp_folder("login") as docker_folder:
        config_path = Path(docker_folder, "config.json")
        # The mode first, then the secret: never readable by others, not even for a moment.
        config_path.touch(mode=0o600)
        config_path.write_text(json.dumps(docker_config), encoding="utf-8")
        yield Path(docker_folder)


def push_image(
    builder: ContainerBuilder,
    image_tag: str,
    reference: str,
    *,
    credential: Credential | None,
    report: Report,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Push and return the digest; try again if the network, not the credential, is to blame.

    Raises `LoginRefused`, `PushFailed`, `NoSuchImage`.
    """
    registry_name = registry_host(reference)
    try_count = 0

    def push_once() -> str:
        nonlocal try_count
        try_count += 1
        return builder.push(image_tag, reference, docker_folder, report)

    def report_retry(retried_push: Retried) -> None:
        report(f"push failed, trying again: {getattr(retried_push.error, 'reason', retried_push.error)}")

    with write_docker_config(registry_name, credential) as docker_folder:
        try:
            push_retry = Retry(policy=PUSH_RETRIES, on=PushFailed, when=_is_worth_retrying, report=report_retry)
            return push_retry.call(push_once, sleep=sleep)
        except PushFailed as error:
            if (advice := _push_advice(error.reason)) is not None:
                raise PushFailed(reference=reference, reason=error.reason, tries=try_count, advice=advice) from error
            raise LoginRefused(
                registry=registry_name,
                source=credential.source if credential is not None else None,
                advice=login_advice(registry_name),
                said=error.reason,
            ) from error


def _push_advice(reason: str) -> str | None:
    """Return what to do after a push that failed for this reason; None if the login is what was refused."""
    if _NO_REPOSITORY.search(reason):
        return _NO_REPOSITORY_ADVICE
    if _UNREACHABLE.search(reason):
        return _UNREACHABLE_ADVICE
    return None if _REFUSED.search(reason) else PushFailed.advice


def _is_worth_retrying(error: Exception) -> bool:
    reason = error.reason if isinstance(error, PushFailed) else str(error)
    return not (_REFUSED.search(reason) or _NO_REPOSITORY.search(reason))
