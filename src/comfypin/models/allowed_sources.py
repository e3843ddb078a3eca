"""Decides which sources jobs may name: hosts and buckets that the operator allows, and no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfypin.addresses import HostInvalid, normalize_host
from comfypin.errors import ConfigError
from comfypin.http.url import HttpUrl, UrlInvalid
from comfypin.models.interface import hide_secrets
from comfypin.storage.registry import SCHEMES

ANY_HOST = "*"
Refuse = Callable[[str], Exception]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedSources:
    """Hosts (`*.example.com` for all below one, `*` for any) and buckets (`s3://name`) that jobs may name.

    `hub` and `civitai` are the addresses of these services here; `http` allows http:// too.
    """

    hosts: frozenset[str]
    buckets: frozenset[str]
    hub: str
    civitai: str
    http: bool = False

    @classmethod
    def parse(cls, entries: Sequence[str], *, setting: str, hub: str, civitai: str, http: bool) -> "AllowedSources":
        """Read what an operator wrote. Raises `ConfigError`, which names the setting."""
        hosts, buckets = set(), set()
        for entry in entries:
            scheme, separator, bucket = entry.partition("://")
            if separator and scheme.lower() in SCHEMES and bucket and "/" not in bucket:
                buckets.add(f"{scheme.lower()}://{bucket}")
                continue
            wildcard, host_name = ("*.", entry[2:]) if entry.startswith("*.") else ("", entry)
            try:
                hosts.add(entry if entry == ANY_HOST else wildcard + normalize_host(host_name))
            except HostInvalid:
                raise ConfigError(
                    f"{setting} has {entry!r}, which is neither a host (huggingface.co, *.example.com), nor a bucket "
                    "(s3://name), nor * for any public host.",
                    setting=setting,
                ) from None
        return cls(hosts=frozenset(hosts), buckets=frozenset(buckets), hub=hub, civitai=civitai, http=http)

    def check(self, address: str, refuse: Refuse) -> None:
        """Raise what `refuse` makes of the reason, unless the address may be used."""
        scheme, separator, rest = address.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in {"http", "https", "hf", "civitai", *SCHEMES}:
            raise refuse("it must be an https://, hf:// or civitai:// address, or an object's, such as s3://bucket/key")
        if scheme in SCHEMES:
            bucket = f"{scheme}://{rest.partition('/')[0]}"
            if bucket not in self.buckets:
                raise refuse(f"models may not be fetched from {bucket} here")
            return
        if scheme == "http" and not self.http:
            raise refuse("it must be https://, since anybody on the way could change what comes by http://")
        try:
            url = HttpUrl.parse({"hf": self.hub, "civitai": self.civitai}.get(scheme, address))
        except UrlInvalid as error:
            raise refuse(f"{hide_secrets(address)!r} is not an address: {error.reason}") from None
        if not self._allows(url.host):
            raise refuse(f"models may not be fetched from {url.host} here")

    def _allows(self, host: str) -> bool:
        parents = host.split(".")
        wildcards = {f"*.{'.'.join(parents[start:])}" for start in range(1, len(parents))}
        return bool(self.hosts & {ANY_HOST, host, *wildcards})
