"""Where a job's own bucket may be: not on a private address, as a job's inputs may not come from there."""

from urllib.parse import urlsplit

from comfypin.errors.serve import JobInvalid
from comfypin.models.network import Dialler, SystemDialler, is_public
from comfypin.objects.config import S3Config


def require_public(config: S3Config, *, dialler: Dialler | None = None) -> None:
    """Raises `JobInvalid` where the endpoint of a job's `s3Config` leads to a private address.

    Both names under which S3's clients ask for a bucket are looked at: ENDPOINT/BUCKET and BUCKET.ENDPOINT.
    """
    parts = urlsplit(config.endpoint or "")
    host = parts.hostname
    if host is None:
        return
    dialler = dialler or SystemDialler()
    for name in (host, f"{config.bucket}.{host}"):
        try:
            addresses = dialler.resolve(name, parts.port or 443)
        except (OSError, UnicodeError):
            # A name that leads nowhere; the delivery says so. Where a proxy may know it, nobody here can tell.
            if name != host or config.proxies.to(str(config.endpoint)) is None:
                continue
            addresses = []
        if not addresses or not all(map(is_public, addresses)):
            leads = "leads to a private address" if addresses else "is not known here, so it might be a private address"
            finding = f"s3Config.endpointUrl: it {leads}, which jobs may not name (--allow-private-inputs lets them)"
            raise JobInvalid(findings=[finding])
