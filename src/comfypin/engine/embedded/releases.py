"""Describes the ComfyUI releases that the embedded engine can imitate, apart from their nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from comfypin.digest import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyRelease:
    """Describes one release of ComfyUI as its clients see it; each field is one difference that they can notice."""

    version: str
    # The catalogue has the keys of the newer node schema (aliases, match types, price badges).
    lists_node_schemas: bool = False
    # A choice of a class that uses the schema is checked before the prompt is queued.
    checks_schema_choices: bool = False
    # An unknown class is refused as `missing_node_type`, a circle of links as `dependency_cycle`.
    names_missing_nodes: bool = False
    # A prompt id that a client chose must be a UUID.
    wants_uuids: bool = False
    # /api/jobs and /node_replacements exist.
    has_jobs: bool = False
    # What /features and /system_stats say besides what every release does.
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
