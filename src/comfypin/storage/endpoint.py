"""Parses the many ways in which people write an endpoint into service, bucket and region."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from comfypin.addresses import normalize_host
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.object_keys import encode_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEndpoint:
    """A service's URL (with its base path, if any), the bucket and the region; `given` is what the user wrote."""

    endpoint: str | None
    bucket: str | None
    region: str | None
    given: str | None = None

    @classmethod
    def parse(cls, url: str | None, *, bucket: str | None, variable: str = "S3_ENDPOINT_URL") -> "ParsedEndpoint":
        """Split an endpoint URL into the service's address, the bucket (in host or path), and the region.

        `https://b.s3.eu-west-1.amazonaws.com`, `https://s3.eu-west-1.amazonaws.com/b`,
        `https://<account>.r2.cloudflarestorage.com/b`, `https://b.fra1.digitaloceanspaces.com`,
        `https://s3api-eu-ro-1.runpod.io`, `http://localhost:9000`, `https://<project>.supabase.co/storage/v1/s3`.
        Raises `SettingInvalid`.
        """
        if url is None:
            return cls(endpoint=None, bucket=bucket, region=None)
        url_parts = parse_server_address(url if "://" in url else f"https://{url}", variable)
        hostname = normalize_host(url_parts.hostname or "")
        hostname = f"[{hostname}]" if ":" in hostname else hostname
        service_host, bucket_in_host = _split_host(hostname, bucket)
        region = _region_in_host(service_host)
        path_parts = tuple(unquote(path_part) for path_part in url_parts.path.split("/") if path_part)
        pathless = bucket_in_host or _PATHLESS.fullmatch(service_host)
        base_parts, bucket_parts = ((), path_parts[:1]) if pathless else _split_path(path_parts, bucket)
        port = f":{url_parts.port}" if url_parts.port else ""
        base_path = "".join(f"/{encode_key(path_part)}" for path_part in base_parts)
        return cls(
            endpoint=f"{url_parts.scheme}://{service_host}{port}{base_path}",
            bucket=bucket or bucket_in_host or next(iter(bucket_parts), None),
            region=region,
            given=url,
        )


# Services whose URLs have no base path: a path here names the bucket, and perhaps a folder.
_PATHLESS = re.compile(
    r"(.*\.)?(amazonaws\.com(\.cn)?|digitaloceanspaces\.com|backblazeb2\.com|wasabisys\.com|scw\.cloud"
    r"|r2\.cloudflarestorage\.com|runpod\.io|storage\.googleapis\.com)"
)
# Base paths of S3 APIs at services that have other APIs too. https://supabase.com/docs/guides/storage/s3/authentication
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


def parse_server_address(url: str, variable: str) -> SplitResult:
    """Split a server's URL. Raises `SettingInvalid`, which shows no user, password or query."""
    try:
        url_parts = urlsplit(url)
        normalize_host(url_parts.hostname or "")
        usable = url_parts.scheme in {"http", "https"} and url_parts.port != 0
    except ValueError:
        raise SettingInvalid(variable=variable, expected="a URL like https://host") from None
    shown_url = f"{url_parts.scheme}://{url_parts.netloc.rpartition('@')[2]}"
    if not usable:
        raise SettingInvalid(variable=variable, value=shown_url, expected="a URL like https://host")
    if "@" in url_parts.netloc or url_parts.query or url_parts.fragment or {".", ".."} & set(url_parts.path.split("/")):
        expected = f"a URL without user, password, query, '.' and '..', like {shown_url}"
        raise SettingInvalid(variable=variable, expected=expected)
    return url_parts


def _split_host(hostname: str, bucket: str | None) -> tuple[str, str | None]:
    if bucket and hostname.startswith(f"{bucket}."):
        return hostname.removeprefix(f"{bucket}."), bucket
    for pattern in _HOSTS_WITH_BUCKET:
        if matched := re.fullmatch(pattern, hostname):
            return matched["rest"], matched["bucket"]
    return hostname, None


def _region_in_host(hostname: str) -> str | None:
    if hostname.endswith(".r2.cloudflarestorage.com"):
        # The only region of R2: https://developers.cloudflare.com/r2/api/s3/api/
        return "auto"
    for pattern in _REGIONS:
        if matched := re.fullmatch(pattern, hostname):
            return matched["region"]
    return None


def _split_path(path_parts: tuple[str, ...], bucket: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a URL's path into the service's base path and the bucket, if it holds one."""
    for base_parts in _BASES:
        if path_parts[: len(base_parts)] == base_parts:
            return base_parts, path_parts[len(base_parts) :][:1]
    if bucket is None:
        # With several parts nobody can tell which is the bucket, so it must be named.
        return ((), path_parts) if len(path_parts) == 1 else (path_parts, ())
    return (path_parts[:-1] if path_parts[-1:] == (bucket,) else path_parts), (bucket,)
