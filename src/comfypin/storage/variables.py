"""Variables of the environment as values: each mistake names its variable."""

import re
from collections.abc import Mapping
from pathlib import Path

from comfypin.errors.storage import KeyInvalid, SettingInvalid
from comfypin.settings import fit_for_headers
from comfypin.storage.interface import DEFAULT_PREFIX
from comfypin.storage.keys import clean_prefix

_LONGEST_PATH = 1024
_LONGEST_PREFIX_BYTES = 512  # of the 1024 of a key: job and name need the rest
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class Variables:
    """Environment variables by name; empty ones count as unset; every mistake names its variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, *names: str) -> str | None:
        """The first of these variables that is set. Raises `SettingInvalid` where it is no text at all."""
        for name in names:
            if value := self._environ.get(name, "").strip():
                return written(name, value)
        return None

    def first(self, *names: str) -> str:
        """Which of these variables `text` takes; the first where none is set."""
        return next((name for name in names if self._environ.get(name, "").strip()), names[0])

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            raise SettingInvalid(variable=name, value=value, expected="true or false")
        return value.lower() in _TRUE

    def count(self, name: str, *, default: int, maximum: int | None = None) -> int:
        """A whole number from 0. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,15}", value) or (maximum is not None and int(value) > maximum):
            limit = f"a whole number from 0{f' to {maximum}' if maximum is not None else ''}"
            raise SettingInvalid(variable=name, value=value, expected=limit)
        return int(value)

    def seconds(self, name: str, *, default: float) -> float:
        """A number of seconds from 0. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", value):
            raise SettingInvalid(variable=name, value=value, expected="a number of seconds")
        return float(value)

    def header(self, name: str) -> str | None:
        """A key id or token, which goes into headers. Raises `ConfigError`, which does not show it."""
        value = self.text(name)
        return None if value is None else fit_for_headers(name, value)

    def file(self, name: str) -> Path | None:
        """The path of a file. Raises `SettingInvalid` where it is, as it happens, what such a file holds."""
        value = self.text(name)
        if value is None:
            return None
        if value.startswith("{") or len(value) > _LONGEST_PATH or not value.isprintable():
            raise SettingInvalid(variable=name, expected="the path of a file; write it to one, and name that")
        return Path(value).expanduser()

    def certificates(self, *names: str) -> str | None:
        """The file or folder of certificates to trust. Raises `SettingInvalid`."""
        name = self.first(*names)
        path = self.file(name)
        if path is not None and not path.exists():
            raise SettingInvalid(variable=name, value=str(path), expected="a file of certificates: nothing is there")
        return str(path) if path else None

    def token(self, name: str, *, expected: str) -> str | None:
        """One word without what would change an address or a signature. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            raise SettingInvalid(variable=name, value=value, expected=expected)
        return value

    def bucket(self, *names: str, scheme: str) -> str | None:
        """The name of a bucket, or its address. Raises `SettingInvalid`."""
        name = self.first(*names)
        value = self.text(name)
        return None if value is None else bucket_name(value, variable=name, scheme=scheme)

    def prefix(self, name: str) -> str:
        """A prefix for keys; `/` alone means none. Raises `SettingInvalid`."""
        value = self.text(name) or DEFAULT_PREFIX
        try:
            prefix = clean_prefix(value)
            if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
                raise KeyInvalid(key=prefix, reason="no room is left for names")
            return prefix
        except KeyInvalid as exc:
            raise SettingInvalid(variable=name, value=value, expected="a beginning of keys like a/b") from exc


def written(variable: str, value: str) -> str:
    """The value, if it is text: bytes that are no UTF-8, and half characters, are not. Raises `SettingInvalid`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingInvalid(variable=variable, expected="text in UTF-8") from None
    return value


def bucket_name(text: str, *, variable: str, scheme: str) -> str:
    """A bucket's name from itself or its address, `s3://name`. Raises `SettingInvalid`."""
    name = text.removeprefix(f"{scheme}://").rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?", name):
        family = {"gs": "GCS", "az": "AZURE"}.get(scheme, "S3")
        expected = f"the name of a bucket alone (what keys begin with is {family}_PREFIX)"
        raise SettingInvalid(variable=variable, value=None if "@" in text else text, expected=expected)
    return name
