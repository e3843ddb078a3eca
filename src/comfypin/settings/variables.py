"""The environment's variables as typed values: each mistake names its variable."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from comfypin.errors import ConfigError
from comfypin.settings.errors import SettingInvalid

_LONGEST_PATH = 1024
_MOST_PORT = 999_999  # above 65535 Runpod's symmetrical ports begin
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class Variables(Mapping[str, str]):
    """Environment variables by name. The typed readers count empty ones as unset, and name the variable in errors.

    As a mapping it is what child processes inherit. Its repr shows no value: some are secret.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)

    def __getitem__(self, name: str) -> str:
        return self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def __repr__(self) -> str:
        return f"Variables({len(self)})"

    def text(self, *names: str) -> str | None:
        """Return the first of these variables that is set. Raises `SettingInvalid` if it is not valid UTF-8."""
        for name in names:
            if value := self.get(name, "").strip():
                return written(name, value)
        return None

    def first(self, *names: str) -> str:
        """Return which of these variables `text` takes; the first if none is set."""
        return next((name for name in names if self.get(name, "").strip()), names[0])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return true or false. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            raise SettingInvalid(variable=name, value=value, expected="true or false")
        return value.lower() in _TRUE

    def count(self, name: str, *, default: int, minimum: int = 0, maximum: int | None = None) -> int:
        """Return a whole number. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        number = int(value) if re.fullmatch(r"[0-9]{1,15}", value) else -1
        if number < minimum or (maximum is not None and number > maximum):
            limit = f"a whole number from {minimum}{f' to {maximum}' if maximum is not None else ''}"
            raise SettingInvalid(variable=name, value=value, expected=limit)
        return number

    def seconds(self, name: str, *, default: float) -> float:
        """Return a number of seconds from 0. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", value):
            raise SettingInvalid(variable=name, value=value, expected="a number of seconds")
        return float(value)

    def port(self, name: str) -> int | None:
        """Return the number of a port, or of one of Runpod's symmetrical ports. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,6}", value) or not 1 <= int(value) <= _MOST_PORT:
            raise SettingInvalid(variable=name, value=value, expected="the number of a port")
        return int(value)

    def word(self, name: str, choices: Collection[str]) -> str | None:
        """Return one of these words, in lower case. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is not None and value.lower() not in choices:
            raise SettingInvalid(variable=name, value=value, expected=f"one of {', '.join(choices)}")
        return value.lower() if value is not None else None

    def header(self, *names: str) -> str | None:
        """Return a key id or token, which goes into headers. Raises `ConfigError`, which does not show it."""
        value = self.text(*names)
        return None if value is None else fit_for_headers(self.first(*names), value)

    def path(self, name: str) -> Path | None:
        """Return the path of a file or folder, as it is written. Raises `SettingInvalid`."""
        value = self.text(name)
        return None if value is None else Path(value)

    def file(self, name: str) -> Path | None:
        """Return the path of a file. Raises `SettingInvalid` if it is what such a file holds instead."""
        value = self.text(name)
        if value is None:
            return None
        if value.startswith("{") or len(value) > _LONGEST_PATH or not value.isprintable():
            raise SettingInvalid(variable=name, expected="the path of a file; write it to one, and name that")
        return Path(value).expanduser()

    def certificates(self, *names: str) -> str | None:
        """Return the file or folder of certificates to trust. Raises `SettingInvalid`."""
        name = self.first(*names)
        path = self.file(name)
        if path is not None and not path.exists():
            raise SettingInvalid(variable=name, value=str(path), expected="a file of certificates: nothing is there")
        return str(path) if path else None

    def token(self, name: str, *, expected: str) -> str | None:
        """Return one word without what would change an address or a signature. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            raise SettingInvalid(variable=name, value=value, expected=expected)
        return value

    def url(self, name: str) -> str | None:
        """Return a base URL without the slash at its end. It is checked when it is asked."""
        value = self.text(name)
        return value.rstrip("/") if value else None


def written(variable: str, value: str) -> str:
    """Return the value. Raises `SettingInvalid` if it is not valid UTF-8 (bytes, lone surrogates)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingInvalid(variable=variable, expected="text in UTF-8") from None
    return value


def fit_for_headers(name: str, value: str) -> str:
    """Return a token or key id that HTTP takes. Raises `ConfigError` with the name; the value is not shown."""
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(
            f"What {name} holds (not shown) cannot be a token: it has spaces, line breaks or other characters than "
            "ASCII; copy it again.",
            variable=name,
        )
    return value
