"""Asks Runpod what is available: GPUs for workers, CPUs for pods, and data centres with network volumes."""

from comfypin.runpod.errors import ApiUnreachable
from comfypin.runpod.management_api import ManagementApi, Resource

_GPUS = "/v2/catalog/gpus?include=AVAILABILITY&product=SERVERLESS"
_CPUS = "/v2/catalog/cpus?include=AVAILABILITY&product=POD"
_DATA_CENTERS = "/v2/catalog/datacenters"


def read_catalogs(management_api: ManagementApi) -> tuple[list[Resource], list[Resource], list[Resource]]:
    """Return the GPUs, the data centres and the CPUs, in the order in which `choose_place` takes them."""
    return (
        _read_list(management_api, _GPUS, "gpus"),
        _read_list(management_api, _DATA_CENTERS, "dataCenters"),
        _read_list(management_api, _CPUS, "cpus"),
    )


def _read_list(management_api: ManagementApi, path: str, field_name: str) -> list[Resource]:
    answer = management_api.send_request("GET", path)
    listed_items = answer.get(field_name) if isinstance(answer, dict) else None
    if not isinstance(listed_items, list):
        raise ApiUnreachable(request=f"GET {path}", reason=f"the answer holds no list {field_name!r}")
    return listed_items
