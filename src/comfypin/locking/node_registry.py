"""Asks the node registry for packs by id and version, and for the pack that has a node class, only while a lock is
made.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from comfypin.http.proxies import Proxies
from comfypin.locking.errors import RegistryAnswerInvalid
from comfypin.tools.download import read_url
from comfypin.tools.errors import DownloadFailed

# A scheme of ours, so that a pack can be named wherever a repository's URL can.
REGISTRY_SCHEME = "registry://"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryVersion:
    """One version of a pack: its id, and the archive that the registry gives for it."""

    node_id: str
    version: str
    archive: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPack:
    """A pack as the registry knows it: its id, and its repository if it names one."""

    node_id: str
    repository: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRegistry:
    """The registry at an address (https://docs.comfy.org/registry/overview)."""

    url: str
    proxies: Proxies = field(default_factory=Proxies)

    def find_version(self, node_id: str, version: str | None) -> RegistryVersion:
        """Return a pack's version (None: the latest). Raises `DownloadFailed` or `RegistryAnswerInvalid`."""
        request_path = f"/nodes/{quote(node_id, safe='')}"
        if version is None:
            # Not every pack has published a version.
            latest = self._get_json(request_path).get("latest_version")
            response_json: Mapping[str, object] = latest if isinstance(latest, dict) else {}
        else:
            response_json = self._get_json(f"{request_path}/versions/{quote(version, safe='')}")
        archive_url, found_version = response_json.get("downloadUrl"), response_json.get("version")
        if (
            not isinstance(archive_url, str)
            or not isinstance(found_version, str)
            or not archive_url.startswith(("https:", "http:"))
        ):
            raise RegistryAnswerInvalid(url=self.url + request_path, lacks="downloadUrl and version")
        return RegistryVersion(node_id=node_id, version=found_version, archive=archive_url)

    def find_pack(self, node_id: str) -> RegistryPack:
        """Return a pack by its id. Raises `DownloadFailed` or `RegistryAnswerInvalid`."""
        return self._parse_pack(self._get_json(f"/nodes/{quote(node_id, safe='')}"))

    def find_packs_of(self, class_name: str) -> tuple[RegistryPack, ...]:
        """Return the packs that have a node class, empty if no pack has it. Raises `DownloadFailed`."""
        try:
            response_json = self._get_json(f"/comfy-nodes?comfy_node_name={quote(class_name, safe='')}&limit=10")
        except DownloadFailed as error:
            # The registry says "no pack" by 404, which is an answer and not a failure.
            if error.facts.get("reason") == "HTTP 404":
                return ()
            raise
        listed_entries = response_json.get("comfy_nodes") or response_json.get("nodes") or []
        packs_by_id: dict[str, RegistryPack] = {}
        for registry_entry in listed_entries if isinstance(listed_entries, list) else []:
            # The search may answer with classes of similar names.
            if not isinstance(registry_entry, dict) or registry_entry.get("comfy_node_name", class_name) != class_name:
                continue
            node_id = registry_entry.get("node_id") or registry_entry.get("id")
            if isinstance(node_id, str):
                packs_by_id.setdefault(node_id, self.find_pack(node_id))
        return tuple(packs_by_id.values())

    def _parse_pack(self, response_json: Mapping[str, object]) -> RegistryPack:
        node_id, repository = response_json.get("id"), response_json.get("repository")
        if not isinstance(node_id, str):
            raise RegistryAnswerInvalid(url=self.url, lacks="id")
        return RegistryPack(
            node_id=node_id, repository=repository if isinstance(repository, str) and repository else None
        )

    def _get_json(self, path: str) -> Mapping[str, object]:
        request_url = self.url.rstrip("/") + path
        try:
            response_json = json.loads(read_url(request_url, proxies=self.proxies))
        except (ValueError, RecursionError) as error:
            raise RegistryAnswerInvalid(url=request_url, lacks="JSON") from error
        if not isinstance(response_json, dict):
            raise RegistryAnswerInvalid(url=request_url, lacks="an object")
        return response_json
