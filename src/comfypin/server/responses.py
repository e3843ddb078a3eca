"""Responses of the server: JSON in ASCII, which can hold any text of a job, and failures by their status."""

import json
from collections.abc import Mapping

from starlette.responses import Response

from comfypin.digest import JsonValue


class JsonResponse(Response):
    """JSON from a value, or from bytes that are JSON already."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return the body."""
        # json.dumps escapes all but ASCII, so even half a surrogate pair can be sent.
        return content if isinstance(content, bytes) else json.dumps(content).encode()


def failure_response(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **facts: JsonValue
) -> JsonResponse:
    """Return a failure as `{"error": "..."}` with its facts."""
    return JsonResponse({"error": message, **facts}, status_code=status, headers=dict(headers or {}))
