"""The one question before something on Runpod is changed or removed."""

import sys

from comfypin.errors import Cancelled, UsageError


def require_consent(question: str, *, is_given: bool) -> None:
    """Ask whether to go on, unless `--yes` said so. Raises `Cancelled`, and `UsageError` where nobody can answer."""
    if is_given:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can confirm it here, since stdin is not a terminal; add --yes.")
    print(f"{question} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("Nothing was changed.")
