"""Requests to Google Cloud Storage's JSON API, and to the addresses of its upload sessions.

https://cloud.google.com/storage/docs/json_api
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from comfypin.storage.body import NOTHING, Body
from comfypin.storage.dial import Dial
from comfypin.storage.gcs_errors import RefusedRequest, explained
from comfypin.storage.gcs_keys import GcsKeys
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.wire import Answer, ComingAnswer, Wire


class GcsHttp:
    """The requests of one bucket. Safe for threads."""

    def __init__(self, endpoint: str, config: GcsSettings, keys: GcsKeys) -> None:
        self.endpoint = endpoint
        self._bucket = str(config.bucket)
        self._config = config
        self._keys = keys
        self._wires = {endpoint: self._wire(endpoint)}

    def _wire(self, origin: str) -> Wire:
        return Wire(Dial(origin, ca_bundle=self._config.ca_bundle, proxy=self._config.proxies.to(origin)))

    def api(self, path: str, query: Mapping[str, object] | None = None, *, upload: bool = False) -> str:
        """The address of something below the bucket; `path` is encoded already."""
        asked = f"?{urlencode(query, doseq=True)}" if query else ""
        return f"{self.endpoint}{'/upload' if upload else ''}/storage/v1/b/{self._bucket}{path}{asked}"

    def hurried(self) -> AbstractContextManager[None]:
        """Within, answers have to come soon."""
        return self._wires[self.endpoint].hurried()

    def ask(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Body = NOTHING) -> Answer:
        """Send a request and have its answer, whatever it is. Raises `OSError`, `StorageError`."""
        answer = self._ask(method, url, headers or {}, body)
        if answer.status == 401 and self._keys.renew():
            answer = self._ask(method, url, headers or {}, body)
        return answer

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> Answer:
        wire, target, all_headers = self._prepared(method, url, headers)
        return wire.exchange(method, target, all_headers, body)

    @contextmanager
    def sent(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[ComingAnswer]:
        """Send a request and have its answer's beginning. Raises `OSError`, `StorageError`."""
        wire, target, all_headers = self._prepared(method, url, headers)
        with wire.sent(method, target, all_headers) as coming:
            yield coming

    def _prepared(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[Wire, str, Mapping[str, str]]:
        address = urlsplit(url)
        origin = f"{address.scheme}://{address.netloc}"
        wire = self._wires.get(origin) or self._wires.setdefault(origin, self._wire(origin))
        target = address.path + (f"?{address.query}" if address.query else "")
        # Tokens are for Google's address, not for whatever a session may be at.
        proof = self._keys.headers(method, url) if origin == self.endpoint else {}
        return wire, target, {"Host": wire.host, **headers, **proof}

    @contextmanager
    def failures_named(self, action: str, uri: str) -> Iterator[None]:
        """Make errors of ours of what goes wrong within."""
        try:
            yield
        except (OSError, RefusedRequest) as exc:
            error, cause = explained(exc, bucket=self._bucket, action=action, uri=uri)
            raise error from cause


def facts_in(answer: Answer) -> dict[str, Any]:
    """The JSON object of a successful answer. Raises `RefusedRequest`."""
    if answer.status not in {200, 201}:
        raise RefusedRequest.of(answer)
    try:
        facts = json.loads(answer.data)
    except (ValueError, RecursionError) as exc:
        raise RefusedRequest(status=502, reason="the answer is not JSON") from exc
    if not isinstance(facts, dict):
        raise RefusedRequest(status=502, reason="the answer is no object")
    return facts
