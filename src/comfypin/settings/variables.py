"""The environment's variables as typed values: each mistake names its variable."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from comfypin.errors import ConfigError
from comfypin.settings.errors import SettingInvalid

# Longer text is a secret or a document that was put into the wrong variable.
_LONGEST_PATH = 1024
_MOST_PORT = 999_999  # above 65535 Runpod's symmetrical ports begin
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class Variables(Mapping[str, str]):
    """Reads environment variables by name. Its methods treat empty ones as unset, and name the variable in errors.

    As a mapping it is what child processes inherit. Its repr shows no value: some are secret.
    """

    __slots__ = ("_environ",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        # A copy: what a library sets later must not change our settings.
        self._environ = dict(environment)

    def __getitem__(self, variable_name: str) -> str:
        return self._environ[variable_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def __repr__(self) -> str:
        return f"Variables({len(self)})"

    def read_text(self, *variable_names: str) -> str | None:
        """Return the first of these variables that is set. Raises `SettingInvalid` if it is not valid UTF-8."""
        for variable_name in variable_names:
            if raw_value := self.get(variable_name, "").strip():
                return require_utf8(variable_name, raw_value)
        return None

    def first_set_name(self, *variable_names: str) -> str:
        """Return the name of the variable that `read_text` takes; the first if none is set."""
        return next(
            (variable_name for variable_name in variable_names if self.get(variable_name, "").strip()),
            variable_names[0],
        )

    def read_flag(self, variable_name: str, *, default: bool = False) -> bool:
        """Return true or false. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is None:
            return default
        if raw_value.lower() not in _TRUE | _FALSE:
            raise SettingInvalid(variable=variable_name, value=raw_value, expected="true or false")
        return raw_value.lower() in _TRUE

    def read_count(self, variable_name: str, *, default: int, minimum: int = 0, maximum: int | None = None) -> int:
        """Return a whole number. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is None:
            return default
        # int() would also take signs, underscores and the digits of other scripts.
        number = int(raw_value) if re.fullmatch(r"[0-9]{1,15}", raw_value) else -1
        if number < minimum or (maximum is not None and number > maximum):
            allowed_range = f"a whole number from {minimum}{f' to {maximum}' if maximum is not None else ''}"
            raise SettingInvalid(variable=variable_name, value=raw_value, expected=allowed_range)
        return number

    def read_seconds(self, variable_name: str, *, default: float) -> float:
        """Return a number of seconds, 0 or more. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", raw_value):
            raise SettingInvalid(variable=variable_name, value=raw_value, expected="a number of seconds")
        return float(raw_value)

    def read_port(self, variable_name: str) -> int | None:
        """Return the number of a port, or of one of Runpod's symmetrical ports. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,6}", raw_value) or not 1 <= int(raw_value) <= _MOST_PORT:
            raise SettingInvalid(variable=variable_name, value=raw_value, expected="a port number")
        return int(raw_value)

    def read_word(self, variable_name: str, choices: Collection[str]) -> str | None:
        """Return one of these words, in lower case. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is not None and raw_value.lower() not in choices:
            raise SettingInvalid(variable=variable_name, value=raw_value, expected=f"one of {', '.join(choices)}")
        return raw_value.lower() if raw_value is not None else None

    def read_header(self, *variable_names: str) -> str | None:
        """Return a key id or token that goes into a header. Raises `ConfigError`, which does not show its value."""
        raw_value = self.read_text(*variable_names)
        return None if raw_value is None else require_header_safe(self.first_set_name(*variable_names), raw_value)

    def read_path(self, variable_name: str) -> Path | None:
        """Return the path of a file or folder, as it is written. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        return None if raw_value is None else Path(raw_value)

    def read_file_path(self, variable_name: str) -> Path | None:
        """Return the path of a file. Raises `SettingInvalid` if the variable holds a file's content instead."""
        raw_value = self.read_text(variable_name)
        if raw_value is None:
            return None
        # People paste the key itself where its file's path is wanted; the message must not show it.
        if raw_value.startswith("{") or len(raw_value) > _LONGEST_PATH or not raw_value.isprintable():
            raise SettingInvalid(
                variable=variable_name, expected="the path of a file: save the content to a file, and name that file"
            )
        # No shell has replaced the ~ that people write into a platform's form.
        return Path(raw_value).expanduser()

    def read_certificates(self, *variable_names: str) -> str | None:
        """Return the file or folder of certificates to trust. Raises `SettingInvalid`."""
        variable_name = self.first_set_name(*variable_names)
        certificates_path = self.read_file_path(variable_name)
        if certificates_path is not None and not certificates_path.exists():
            raise SettingInvalid(
                variable=variable_name,
                value=str(certificates_path),
                expected="an existing file or folder of certificates",
            )
        return str(certificates_path) if certificates_path else None

    def read_token(self, variable_name: str, *, expected: str) -> str | None:
        """Return one word that cannot change a URL or a signature. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name)
        if raw_value is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", raw_value):
            raise SettingInvalid(variable=variable_name, value=raw_value, expected=expected)
        return raw_value

    def read_url(self, variable_name: str) -> str | None:
        """Return a base URL without its trailing slash. It is checked when it is used."""
        raw_value = self.read_text(variable_name)
        # Whoever appends a path starts it with a slash.
        return raw_value.rstrip("/") if raw_value else None


def require_utf8(variable_name: str, value: str) -> str:
    """Return the value. Raises `SettingInvalid` if it is not valid UTF-8 (bytes, lone surrogates)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingInvalid(variable=variable_name, expected="text in UTF-8") from None
    return value


def require_header_safe(variable_name: str, raw_value: str) -> str:
    """Return a token or key id if it fits into a header. Raises `ConfigError`, which names it but hides its value."""
    if not (raw_value.isascii() and raw_value.isprintable() and " " not in raw_value):
        raise ConfigError(
            f"The value of {variable_name} (not shown) cannot be a token: it has spaces, line breaks or "
            "characters that are not ASCII; copy it again.",
            variable=variable_name,
        )
    return raw_value
