"""Spot pods: cheaper, and taken away whenever somebody pays more. Runpod's REST API v2 has none, its GraphQL has.

https://docs.runpod.io/sdks/graphql/manage-pods. Written from that page and public clients; never tried on Runpod.
"""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.runpod.errors import ApiRefused, ApiUnreachable
from comfypin.runpod.management_api import ManagementApi, Resource

_PATH = "/graphql"
_MAKE = "mutation Make($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) { id } }"
_BID = (
    "query Bid($id: String!) { gpuTypes(input: {id: $id}) { lowestPrice(input: {gpuCount: 1}) { minimumBidPrice } } }"
)


def read_spot_price(management_api: ManagementApi, gpu: str) -> float | None:
    """Return the lowest bid for a GPU type now, in dollars an hour; None if none is to be had."""
    data = _ask(management_api, _BID, {"id": gpu})
    types = data.get("gpuTypes")
    lowest = types[0].get("lowestPrice") if isinstance(types, list) and types and isinstance(types[0], dict) else None
    price = lowest.get("minimumBidPrice") if isinstance(lowest, Mapping) else None
    return float(price) if isinstance(price, int | float) else None


def make_spot_pod(management_api: ManagementApi, request: Mapping[str, object], *, bid: float) -> Resource:
    """Make a spot pod of what a request to the REST API says; once: a lost answer is looked up by the pod's name.

    Raises `ApiRefused`, with 400 if there is no room at this price, `ApiUnreachable`.
    """
    try:
        made = _ask(management_api, _MAKE, {"input": _to_graphql(request, bid)}).get("podRentInterruptable")
    except (ApiUnreachable, ApiRefused) as failure:
        # A gateway that gave up (502, 504) does not know either.
        if isinstance(failure, ApiRefused) and failure.status < 500:
            raise
        # The answer may have been lost after the pod was made; a second one would be billed, too.
        existing_pod = next(
            (pod for pod in management_api.list_resources("pod") if pod.get("name") == request["name"]), None
        )
        if existing_pod is None:
            raise
        return existing_pod
    # Null instead of a pod: no machine takes the bid.
    if not isinstance(made, dict):
        raise ApiRefused(request=f"POST {_PATH}", status=400, title="No pod", detail="no room at this price")
    # Read back, since GraphQL describes pods in other words than the REST API.
    return management_api.get_resource("pod", str(made["id"]))


def _to_graphql(request: Mapping[str, object], bid: float) -> dict[str, JsonValue]:
    gpu, mounts, variables, centers = (
        request.get(field_name) for field_name in ("gpu", "mounts", "env", "dataCenterIds")
    )
    networks = mounts.get("network") if isinstance(mounts, Mapping) else None
    fields: dict[str, JsonValue] = {
        "bidPerGpu": bid,
        "name": str(request["name"]),
        "imageName": str(request["image"]),
        "dockerArgs": str(request["args"]),
        "cloudType": str(request["cloud"]),
        "gpuTypeId": str(gpu["id"]) if isinstance(gpu, Mapping) else "",
        "gpuCount": 1,
        "containerDiskInGb": int(str(request["disk"])),
        "volumeInGb": 0,
        "env": [
            {"key": str(field_name), "value": str(value)}
            for field_name, value in (variables.items() if isinstance(variables, Mapping) else ())
        ],
    }
    if isinstance(networks, list) and networks:
        fields |= {"networkVolumeId": str(networks[0]["volumeId"]), "volumeMountPath": str(networks[0]["path"])}
    if isinstance(centers, list) and centers:
        fields["dataCenterId"] = str(centers[0])
    if request.get("registry"):
        fields["containerRegistryAuthId"] = str(request["registry"])
    return fields


def _ask(management_api: ManagementApi, query: str, variables: Mapping[str, JsonValue]) -> Mapping[str, object]:
    """Return the data of an answer. Raises `ApiRefused` for what it says is wrong: GraphQL says it with status 200."""
    answer = management_api.submit_once(_PATH, {"query": query, "variables": dict(variables)})
    errors = answer.get("errors") if isinstance(answer, Mapping) else None
    if isinstance(errors, list) and errors:
        error_text = errors[0].get("message") if isinstance(errors[0], Mapping) else errors[0]
        raise ApiRefused(request=f"POST {_PATH}", status=400, title="GraphQL", detail=str(error_text))
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, Mapping):
        raise ApiUnreachable(request=f"POST {_PATH}", reason="the answer holds no data")
    return data
