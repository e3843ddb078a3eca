"""Tells variables that hold a secret in plain text from those that hold facts (pure)."""

import json
import re
from collections.abc import Callable

_SECRET_NAME = re.compile(
    r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|ACCESS_KEY_ID|AUTH)(_|$)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|rpa_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|"
    r"ya29\.[\w-]{20,}|sk-[A-Za-z0-9_-]{20,}|xox[bap]-[\w-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@|"
    r"\bAccountKey=\S|\bSharedAccessSignature=\S"
)
# In JSON: keys of service accounts, of users, of workload identity that gets its token with a header or a secret.
_SECRET_FIELD = re.compile(
    r".*(private_?key|secret|password|passphrase|authorization|api_?key|access_?key|(access|refresh|id|bearer|auth)_?token)",
    re.IGNORECASE,
)
# Settings whose names look like secrets and whose values are plain facts, unless they are JSON.
_NOT_SECRET = {"GOOGLE_APPLICATION_CREDENTIALS"}


def looks_secret(variable: str, value: str, *, is_reference: Callable[[str], bool] = lambda _text: False) -> bool:
    """Return whether a variable holds a secret; the name or the value alone is enough.

    `is_reference` knows the words by which a platform names a secret that it keeps.
    """
    if not value or is_reference(value):
        return False
    if (_SECRET_NAME.search(variable) and variable not in _NOT_SECRET) or _SECRET_VALUE.search(value):
        return True
    if not value.lstrip().startswith(("{", "[")):
        return False
    try:
        return _holds_secret(json.loads(value), is_reference)
    except (ValueError, RecursionError):
        # Of a text that is not JSON nobody knows; a key that was pasted badly is still one.
        return variable in _NOT_SECRET or '"private_key"' in value


def _holds_secret(document: object, is_reference: Callable[[str], bool]) -> bool:
    match document:
        case dict():
            texts = {
                variable_name: value.strip() for variable_name, value in document.items() if isinstance(value, str)
            }
            plain_names = [
                variable_name
                for variable_name, variable_text in texts.items()
                if variable_text and not is_reference(variable_text)
            ]
            return any(map(_SECRET_FIELD.fullmatch, plain_names)) or any(
                _holds_secret(nested, is_reference) for nested in document.values()
            )
        case list():
            return any(_holds_secret(nested, is_reference) for nested in document)
        case _:
            return False
