"""Failures of the environment: a variable is missing, invalid, or contradicts another."""

import re
from collections.abc import Sequence

from comfypin.errors import ConfigError

_WITH_USER = re.compile(r"//?[^/\s]*@")


class SettingMissing(ConfigError):
    """A store was asked for, and a variable that it needs is not set."""

    def __init__(self, *, variable: str, purpose: str, also: Sequence[str] = ()) -> None:
        alternatives = "".join(f" (or {name})" for name in also)
        super().__init__(
            f"{variable} is not set{alternatives}: it is needed to {purpose}.", variable=variable, purpose=purpose
        )


class SettingInvalid(ConfigError):
    """A variable holds what it cannot mean. A `value` that may be a secret is left out, and not shown."""

    def __init__(self, *, variable: str, expected: str, value: str | None = None) -> None:
        if value is not None and _WITH_USER.search(value):  # an address with a password, in the wrong place
            value = None
        held = f"{variable} is {value!r}, which is" if value is not None else f"What {variable} holds (not shown) is"
        super().__init__(f"{held} not {expected}.", variable=variable, value=value, expected=expected)


class SettingsConflict(ConfigError):
    """Two settings, or a setting and what the store can do, exclude each other."""

    def __init__(self, *, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}.", reason=reason)
