"""The node registry: packs by id and version, and which pack has a node class. Asked only when a lock is made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from comfypin.http.proxies import Proxies
from comfypin.locking.errors import RegistryAnswerInvalid
from comfypin.tools.download import read_url
from comfypin.tools.errors import DownloadFailed

SCHEME = "registry://"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryVersion:
    """One version of a pack: its id, and the archive that the registry gives for it."""

    node_id: str
    version: str
    archive: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A pack as the registry knows it: its id, and its repository where it names one."""

    node_id: str
    repository: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The registry at an address (https://docs.comfy.org/registry/overview)."""

    url: str
    proxies: Proxies = field(default_factory=Proxies)

    def version(self, node_id: str, version: str | None) -> RegistryVersion:
        """A pack's version, None is the latest. Raises `DownloadFailed` or `RegistryAnswerInvalid`."""
        path = f"/nodes/{quote(node_id, safe='')}"
        if version is None:
            latest = self._get(path).get("latest_version")
            answer: Mapping[str, object] = latest if isinstance(latest, dict) else {}
        else:
            answer = self._get(f"{path}/versions/{quote(version, safe='')}")
        archive, found = answer.get("downloadUrl"), answer.get("version")
        if not isinstance(archive, str) or not isinstance(found, str) or not archive.startswith(("https:", "http:")):
            raise RegistryAnswerInvalid(url=self.url + path, lacks="downloadUrl and version")
        return RegistryVersion(node_id=node_id, version=found, archive=archive)

    def pack(self, node_id: str) -> Pack:
        """A pack by its id. Raises `DownloadFailed` or `RegistryAnswerInvalid`."""
        return self._pack(self._get(f"/nodes/{quote(node_id, safe='')}"))

    def packs_of(self, class_name: str) -> tuple[Pack, ...]:
        """The packs that have a node class; none where no pack does. Raises `DownloadFailed`."""
        try:
            answer = self._get(f"/comfy-nodes?comfy_node_name={quote(class_name, safe='')}&limit=10")
        except DownloadFailed as error:
            if error.facts.get("reason") == "HTTP 404":
                return ()
            raise
        listed = answer.get("comfy_nodes") or answer.get("nodes") or []
        packs: dict[str, Pack] = {}
        for item in listed if isinstance(listed, list) else []:
            if not isinstance(item, dict) or item.get("comfy_node_name", class_name) != class_name:
                continue
            node_id = item.get("node_id") or item.get("id")
            if isinstance(node_id, str):
                packs.setdefault(node_id, self.pack(node_id))
        return tuple(packs.values())

    def _pack(self, answer: Mapping[str, object]) -> Pack:
        node_id, repository = answer.get("id"), answer.get("repository")
        if not isinstance(node_id, str):
            raise RegistryAnswerInvalid(url=self.url, lacks="id")
        return Pack(node_id=node_id, repository=repository if isinstance(repository, str) and repository else None)

    def _get(self, path: str) -> Mapping[str, object]:
        url = self.url.rstrip("/") + path
        try:
            answer = json.loads(read_url(url, proxies=self.proxies))
        except (ValueError, RecursionError) as error:
            raise RegistryAnswerInvalid(url=url, lacks="JSON") from error
        if not isinstance(answer, dict):
            raise RegistryAnswerInvalid(url=url, lacks="an object")
        return answer
