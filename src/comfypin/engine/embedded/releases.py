"""Describes the ComfyUI releases that the embedded engine can imitate, apart from their nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from comfypin.digest import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyRelease:
    """Describes one release of ComfyUI as its clients see it; each field is one difference that they can notice.

    `lists_node_schemas`: the catalogue has the keys of the newer node schema (aliases, match types, price badges).
    `checks_schema_choices`: a choice of a class that uses the schema is checked before the prompt is queued.
    `names_missing_nodes`: an unknown class is refused as `missing_node_type`, a circle of links as `dependency_cycle`.
    `wants_uuids`: a prompt id of the client's own must be a UUID.
    `has_jobs`: /api/jobs and /node_replacements exist.
    """

    version: str
    lists_node_schemas: bool = False
    checks_schema_choices: bool = False
    names_missing_nodes: bool = False
    wants_uuids: bool = False
    has_jobs: bool = False
    features: Mapping[str, JsonValue] = field(default_factory=dict)
    system: Mapping[str, JsonValue] = field(default_factory=dict)


RELEASES: Mapping[str, ComfyRelease] = MappingProxyType(
    {
        each.version: each
        for each in (
            ComfyRelease(version="0.3.64"),
            ComfyRelease(
                version="0.33.0",
                lists_node_schemas=True,
                checks_schema_choices=True,
                names_missing_nodes=True,
                wants_uuids=True,
                has_jobs=True,
                features={
                    "supports_model_type_tags": True,
                    "extension": {"manager": {"supports_v4": True}},
                    "node_replacements": True,
                    "assets": False,
                },
                system={"comfy_package_versions": [], "deploy_environment": "local"},
            ),
        )
    }
)

DEFAULT_RELEASE = RELEASES["0.3.64"]
