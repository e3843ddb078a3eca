"""The flags `--env` and `--secret`: variables of workers on Runpod, in the open or as secrets of the platform."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.runpod.up.plan import SecretWish

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def plain_variables(texts: Sequence[str]) -> dict[str, str]:
    """Return the variables of `--env`. Raises `UsageError`."""
    variables = {}
    for variable_text in texts:
        variable, equals, value = variable_text.partition("=")
        if not equals or not _NAME.fullmatch(variable):
            raise UsageError(f"--env {variable!r} is not NAME=VALUE.")
        variables[variable] = value
    return variables


def secret_wishes(texts: Sequence[str], deployment_name: str) -> "tuple[SecretWish, ...]":
    """Return the secrets of `--secret`; those without a name are named for a deployment. Raises `UsageError`."""
    from comfypin.runpod.up.plan import SecretWish, secret_name

    wishes = []
    for secret_text in texts:
        variable, equals, named = secret_text.partition("=")
        if not _NAME.fullmatch(variable) or (equals and not re.fullmatch(r"[\w.\-/]+", named)):
            raise UsageError("--secret takes NAME or NAME=SECRET: a variable, and the name of a secret of Runpod.")
        wishes.append(
            SecretWish(
                variable=variable, secret_name=named or secret_name(deployment_name, variable), own_value=not equals
            )
        )
    return tuple(wishes)
