"""The addresses in answers: whatever proxy and path prefix a client came through, they lead back the same way."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from comfypin.server.comfy_api.envelope import PREFIX

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~\-]{1,100}){1,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The links of one request's answer. `origin` is `scheme://host`; `prefix` is the path that stands before ours."""

    origin: str
    prefix: str = ""

    @classmethod
    def of(cls, request: Request, public_url: str | None) -> "Links":
        """Return the links for a request: below `public_url` if the server has one, else the way it came.

        A proxy that takes a prefix off says so in `X-Forwarded-Prefix`; what is not one is left out.
        """
        if public_url is not None:
            parts = urlsplit(public_url)
            return cls(origin=f"{parts.scheme}://{parts.netloc}", prefix=parts.path.rstrip("/"))
        headers = request.headers
        host = headers.get("host", "")
        secure = request.url.scheme == "https" or headers.get("x-forwarded-proto", "").lower() == "https"
        prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
        return cls(
            origin=f"{'https' if secure else 'http'}://{host if _HOST.fullmatch(host) else 'localhost'}",
            prefix=prefix if _PATH_PREFIX.fullmatch(prefix) else "",
        )

    def job(self, job_id: str) -> dict[str, str]:
        """Return the links of a job, relative to the host."""
        self_ = f"{self.prefix}{PREFIX}/jobs/{job_id}"
        return {"self": self_, "events": f"{self_}/events", "cancel": f"{self_}/cancel"}

    def content(self, asset_id: str) -> str:
        """Return the whole address of an asset's bytes."""
        return f"{self.origin}{self.prefix}{PREFIX}/assets/{asset_id}/content"
