"""Failures of the environment: a variable is missing, invalid, or contradicts another."""

import re

from comfypin.errors import ConfigError, declare

_WITH_USER = re.compile(r"//?[^/\s]*@")


@declare
class SettingMissing(ConfigError):
    """Raised if something was asked for, and a variable that it needs is not set."""

    template = "{variable} is not set{alternatives}: it is needed to {purpose}."
    variable: str
    purpose: str
    also: tuple[str, ...] = ()

    @property
    def alternatives(self) -> str:
        """Return the other variables that would do."""
        return "".join(f" (or {variable_name})" for variable_name in self.also)


class SettingInvalid(ConfigError):
    """Raised if a variable has an invalid value. A `value` that may be a secret is left out, and not shown."""

    def __init__(self, *, variable: str, expected: str, value: str | None = None) -> None:
        # A password in an address that was written to the wrong variable must not be shown either.
        shown_value = None if value is None or _WITH_USER.search(value) else value
        subject = (
            f"{variable} is {shown_value!r}"
            if shown_value is not None
            else f"The value of {variable} (not shown) is invalid"
        )
        super().__init__(f"{subject}; expected {expected}.", variable=variable, value=shown_value, expected=expected)


@declare
class SettingsConflict(ConfigError):
    """Raised if two settings, or a setting and what the store can do, exclude each other."""

    template = "{reason}; {remedy}."
    reason: str
    remedy: str
