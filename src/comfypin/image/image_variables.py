"""Reads the variables that an image's containers shall have (`--env NAME=VALUE`), and refuses secrets (pure)."""

import re
from collections.abc import Iterable

from comfypin.image.errors import VariableRefused
from comfypin.settings.plain_secrets import looks_secret

# What the Dockerfile sets, and what says which release an image is.
_OWN_VARIABLES = frozenset({"PATH", "COMFY_HOME", "COMFY_VERSION_NAME", "LOCK_PATH"})


def read_variables(assignments: Iterable[str]) -> dict[str, str]:
    """Return the variables by name; the last one of a name counts. Raises `VariableRefused`."""
    variables = {}
    for assignment in assignments:
        variable_name, equals, value = assignment.partition("=")
        # The value is shown in no message: it may be what should not be there.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable_name):
            raise VariableRefused(
                name=repr(variable_name), reason="it is not NAME=VALUE with a name of letters, digits and _"
            )
        if not equals:
            raise VariableRefused(name=variable_name, reason=f"it has no value; write --env {variable_name}=VALUE")
        if variable_name in _OWN_VARIABLES:
            raise VariableRefused(name=variable_name, reason="the image sets it itself")
        if not value.isprintable():
            raise VariableRefused(name=variable_name, reason="its value has line breaks or other control characters")
        if looks_secret(variable_name, value):
            raise VariableRefused(name=variable_name, reason=_WHY_NONE_IN_IMAGES)
        variables[variable_name] = value
    return variables


_WHY_NONE_IN_IMAGES = (
    "it looks like a secret, and whoever has an image can read it; give it to the container when that starts "
    '(docker run --env, or [env] in runpod.toml as "{{ RUNPOD_SECRET_name }}"), or to the build alone with --secret'
)
