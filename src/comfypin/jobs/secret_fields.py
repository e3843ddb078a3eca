"""Finds possible secrets in a job, however they are spelled, so that nothing of its input outlives it. Pure."""

import json
import re
from urllib.parse import parse_qsl, urlsplit

_NOT_LETTERS = re.compile(r"[^a-z0-9]")
# Ends of field names, in lower case, without separators: S3Config, s3_config, AccessSecret, comfy_org_api_key, ...
_SECRET_FIELD = re.compile(
    r"(?:s3config|apikey|apitoken|accesskey|accesskeyid|accessid|accesstoken|authtoken|bearertoken|sessiontoken"
    r"|hftoken|securitytoken|authtokencomfyorg|apikeycomfyorg|secret|secretkey|secretaccesskey|privatekey|password"
    r"|passwd|passphrase|authorization|credentials?|cookie)$|^token$"
)
_SECRET_PARAMETER = re.compile(
    r"^(?:x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|sig|key|api[-_]?key|.*token.*|.*secret.*|auth|pass.*)$"
)
# The same in texts that resemble JSON, YAML or the like; and values whose form gives them away. Each repetition has a
# bound, because strangers write these texts.
_SECRET_TEXT = re.compile(
    r"(?:s3_?config|api_?key|access_?(?:key|secret|id)|_?token|secret|passw(?:or)?d|authorization)"
    r"[a-z_]{0,20}[\\\"']{0,20}\s{0,20}[:=]",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"(?:bearer |basic |sk-|hf_|ghp_|AKIA|ya29\.|comfyui-)\S{12,}", re.IGNORECASE)
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]{0,20}://\S+$")
# No signed address is longer, and looking through megabytes would cost a job seconds.
_LONGEST_ADDRESS = 16_384
_LONGEST_TEXT = 65_536  # longer ones are pictures


def holds_secret(document: object) -> bool:
    """Return whether anything in a job looks like a secret: a field's name, an address, or a text, at any depth.

    A text that begins like JSON but is not valid counts as a secret: nobody can say what it holds.
    """
    unvisited = [document]
    if isinstance(document, str) and _begins_like_json(document) and _parse_json(document) is None:
        return True
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, dict):
            if any(_is_secret_field(field_name, item) for field_name, item in value.items()):
                return True
            unvisited.extend(value.values())
        elif isinstance(value, list):
            unvisited.extend(value)
        elif isinstance(value, str):
            if is_secret_address(value):
                return True
            parsed_text = _parse_json(value) if _begins_like_json(value) else None
            if parsed_text is not None:
                unvisited.append(parsed_text)
            elif len(value) < _LONGEST_TEXT and _is_secret_text(value):
                return True
    return False


def is_secret_address(address_text: str) -> bool:
    """Return whether an address holds a user, a password, a signature or a token."""
    if len(address_text) > _LONGEST_ADDRESS or not _ADDRESS.match(address_text):
        return False
    try:
        address_parts = urlsplit(address_text)
        names = [parameter_name.lower() for parameter_name, _ in parse_qsl(address_parts.query, keep_blank_values=True)]
    except ValueError:
        return True
    return "@" in address_parts.netloc or any(map(_SECRET_PARAMETER.match, names))


def _is_secret_field(field_name: str, value: object) -> bool:
    """Return whether a field is secret: never if it is a link (a list), a number or empty, whatever its name."""
    if isinstance(value, str | dict) and value:
        # "5.api_key" of `set` ends like the field that it sets.
        return _SECRET_FIELD.search(_NOT_LETTERS.sub("", field_name.lower().rpartition(".")[2])) is not None
    return False


def _is_secret_text(text: str) -> bool:
    # An escaped letter can hide any word that is looked for here.
    escaped = "\\u00" in text and _begins_like_json(text)
    return escaped or bool(_SECRET_VALUE.match(text)) or bool(_SECRET_TEXT.search(text))


def _begins_like_json(json_text: str) -> bool:
    return json_text.lstrip()[:1] in ("{", "[", '"')


def _parse_json(json_text: str) -> object:
    try:
        return json.loads(json_text)
    except (ValueError, RecursionError):
        return None
