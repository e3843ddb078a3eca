"""What `aws configure` wrote under a profile: a key pair, and the region and endpoint that go with it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.errors.storage import SettingsConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """A key pair and its session token; none of it is ever shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsProfile:
    """One profile of both files. https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html"""

    credentials: S3Credentials | None = None
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def read(cls, name: str | None, *, credentials_file: Path | None, config_file: Path | None) -> "AwsProfile":
        """The profile of this name, or `default` where none is named; files that are absent say nothing.

        Raises `SettingsConflict`.
        """
        section = name or "default"
        keys = _section(credentials_file, section)
        more = _section(config_file, section if section == "default" else f"profile {section}")
        return cls(
            credentials=_pair(keys, credentials_file, section) or _pair(more, config_file, section),
            region=more.get("region"),
            endpoint=more.get("endpoint_url"),
        )


def _section(path: Path | None, name: str) -> dict[str, str]:
    if path is None or not os.path.lexists(path):
        return {}
    import configparser  # only where there are such files

    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error) as exc:
        raise SettingsConflict(
            reason=f"{path} cannot be read as a file of AWS profiles", remedy="repair it, or set AWS_ACCESS_KEY_ID"
        ) from exc
    return dict(parser[name]) if parser.has_section(name) else {}


def _pair(facts: dict[str, str], path: Path | None, section: str) -> S3Credentials | None:
    key, secret = facts.get("aws_access_key_id"), facts.get("aws_secret_access_key")
    if (key is None) != (secret is None):
        raise SettingsConflict(
            reason=f"Of aws_access_key_id and aws_secret_access_key, {path} has only one under [{section}]",
            remedy="run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if not key or not secret:
        return None
    return S3Credentials(access_key_id=key, secret_access_key=secret, session_token=facts.get("aws_session_token"))
