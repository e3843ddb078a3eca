"""Lists the subjects of a stream's messages, however many there are."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

_WITHIN_S = 30.0


async def list_subjects(stream: "JetStreamContext", stream_name: str, pattern: str) -> set[str]:
    """Return the subjects that match a pattern and have a message. Raises what nats-py raises.

    NATS tells a hundred thousand at once, and nats-py asks for the first of them only.
    """
    subjects: set[str] = set()
    while True:
        request = json.dumps({"subjects_filter": pattern, "offset": len(subjects)}).encode()
        # Some megabytes of JSON take longer than other requests.
        told = await stream._api_request(f"$JS.API.STREAM.INFO.{stream_name}", request, timeout=_WITHIN_S)
        page = told["state"].get("subjects") or {}
        subjects.update(page)
        if not page or len(subjects) >= told.get("total", 0):
            return subjects
