"""Where a bucket is, read from the many ways in which people write an endpoint."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from comfypin.addresses import normalize_host
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.keys import encoded_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A service's address, which may have a path of its own, the bucket and the region; `given` is what was written."""

    endpoint: str | None
    bucket: str | None
    region: str | None
    given: str | None = None

    @classmethod
    def parse(cls, url: str | None, *, bucket: str | None, variable: str = "S3_ENDPOINT_URL") -> "Place":
        """Split an endpoint URL into the service's address, the bucket (in host or path), and the region.

        `https://b.s3.eu-west-1.amazonaws.com`, `https://s3.eu-west-1.amazonaws.com/b`,
        `https://<account>.r2.cloudflarestorage.com/b`, `https://b.fra1.digitaloceanspaces.com`,
        `https://s3api-eu-ro-1.runpod.io`, `http://localhost:9000`, `https://<project>.supabase.co/storage/v1/s3`.
        Raises `SettingInvalid`.
        """
        if url is None:
            return cls(endpoint=None, bucket=bucket, region=None)
        parts = checked_address(url if "://" in url else f"https://{url}", variable)
        host = normalize_host(parts.hostname or "")
        host = f"[{host}]" if ":" in host else host
        service, in_host = _without_bucket(host, bucket)
        region = _region_of(service)
        in_path = tuple(unquote(part) for part in parts.path.split("/") if part)
        pathless = in_host or _PATHLESS.fullmatch(service)
        base, named = ((), in_path[:1]) if pathless else _split_path(in_path, bucket)
        port = f":{parts.port}" if parts.port else ""
        return cls(
            endpoint=f"{parts.scheme}://{service}{port}{''.join(f'/{encoded_key(part)}' for part in base)}",
            bucket=bucket or in_host or next(iter(named), None),
            region=region,
            given=url,
        )


# Services without a path of their own: what stands there is a bucket, and perhaps a folder.
_PATHLESS = re.compile(
    r"(.*\.)?(amazonaws\.com(\.cn)?|digitaloceanspaces\.com|backblazeb2\.com|wasabisys\.com|scw\.cloud"
    r"|r2\.cloudflarestorage\.com|runpod\.io|storage\.googleapis\.com)"
)
# Where services have their S3 API, beside other things. https://supabase.com/docs/guides/storage/s3/authentication
_BASES = (("storage", "v1", "s3"),)
_HOSTS_WITH_BUCKET = (
    r"(?P<bucket>.+)\.(?P<rest>s3[.-](?:dualstack\.)?[a-z0-9-]+\.amazonaws\.com(?:\.cn)?|s3\.amazonaws\.com)",
    r"(?P<bucket>[^.]+)\.(?P<rest>[a-z0-9]+\.digitaloceanspaces\.com)",
    r"(?P<bucket>[^.]+)\.(?P<rest>s3\.[a-z0-9-]+\.(?:backblazeb2|wasabisys|scw)\.(?:com|cloud))",
    r"(?P<bucket>[^.]+)\.(?P<rest>[0-9a-f]{32}\.(?:eu\.|fedramp\.)?r2\.cloudflarestorage\.com)",
)
_REGIONS = (
    r"s3[.-](?:dualstack\.)?(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?",
    r"(?P<region>[a-z0-9]+)\.digitaloceanspaces\.com",
    r"s3\.(?P<region>[a-z0-9-]+)\.(?:backblazeb2|wasabisys|scw)\.(?:com|cloud)",
    r"s3api-(?P<region>[a-z0-9-]+)\.runpod\.io",
)


def checked_address(url: str, variable: str) -> SplitResult:
    """The parts of a server's address. Raises `SettingInvalid`, which shows no user, password or query."""
    try:
        parts = urlsplit(url)
        normalize_host(parts.hostname or "")
        usable = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        raise SettingInvalid(variable=variable, expected="an address like https://host") from None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if not usable:
        raise SettingInvalid(variable=variable, value=shown, expected="an address like https://host")
    if "@" in parts.netloc or parts.query or parts.fragment or {".", ".."} & set(parts.path.split("/")):
        expected = f"an address without user, password, query, '.' and '..': {shown}"
        raise SettingInvalid(variable=variable, expected=expected)
    return parts


def _without_bucket(host: str, bucket: str | None) -> tuple[str, str | None]:
    if bucket and host.startswith(f"{bucket}."):
        return host.removeprefix(f"{bucket}."), bucket
    for pattern in _HOSTS_WITH_BUCKET:
        if found := re.fullmatch(pattern, host):
            return found["rest"], found["bucket"]
    return host, None


def _region_of(host: str) -> str | None:
    if host.endswith(".r2.cloudflarestorage.com"):
        return "auto"
    for pattern in _REGIONS:
        if found := re.fullmatch(pattern, host):
            return found["region"]
    return None


def _split_path(path: tuple[str, ...], bucket: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The service's own part of an address's path, and the bucket, where that is the rest."""
    for base in _BASES:
        if path[: len(base)] == base:
            return base, path[len(base) :][:1]
    if bucket is None:
        # Of several parts nobody can tell which is the bucket: it has to be named.
        return ((), path) if len(path) == 1 else (path, ())
    return (path[:-1] if path[-1:] == (bucket,) else path), (bucket,)
