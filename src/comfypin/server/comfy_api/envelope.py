"""Comfy API v2's envelope of errors, and which paths speak it."""

import json
from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.server.responses import JsonResponse

PREFIX = "/api/v2"
UPLOAD_PATH = f"{PREFIX}/assets"
_CODES = {401: "unauthorized", 403: "forbidden", 422: "request_too_large"}


def speaks_envelope(path: str) -> bool:
    """Return whether a path is one of Comfy API v2."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def envelope(
    status: int,
    code: str,
    message: str,
    *,
    details: Mapping[str, JsonValue] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """Return an answer in the API's envelope of errors."""
    error: dict[str, JsonValue] = {"code": code, "message": message}
    if details is not None:
        error["details"] = dict(details)
    return JsonResponse({"error": error}, status_code=status, headers=dict(headers or {}))


def to_envelope(refused: JsonResponse) -> JsonResponse:
    """Return an answer of the gate, which refuses requests before anybody reads them, in the envelope."""
    # The description has no 413: what is too large is a failure of validation.
    status = 422 if refused.status_code == 413 else refused.status_code
    message = json.loads(bytes(refused.body))["error"]
    answer = envelope(status, _CODES.get(status, "invalid_request"), message)
    for header_name, value in refused.headers.items():
        if not header_name.startswith("content-"):
            answer.headers.append(header_name, value)
    return answer
