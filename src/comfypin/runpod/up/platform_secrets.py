"""Secrets of the account: their names are listed, their values are only ever sent.

The description of the API that we have lacks `/v2/account/secrets`; runpodctl 2.7 uses it so.
"""

from comfypin.runpod.errors import ApiUnreachable
from comfypin.runpod.management_api import ManagementApi

_PATH = "/v2/account/secrets"
_PAGE_SIZE = 1000
# More is a cursor that goes round in circles.
_MOST_PAGES = 100


def list_secrets(management_api: ManagementApi) -> dict[str, str]:
    """Return the ids of the account's secrets by name."""
    ids_by_name: dict[str, str] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        query = f"?limit={_PAGE_SIZE}" + (f"&cursor={cursor}" if cursor else "")
        answer = management_api.send_request("GET", _PATH + query)
        secrets = answer.get("secrets") if isinstance(answer, dict) else None
        if not isinstance(secrets, list) or not isinstance(answer, dict):
            raise ApiUnreachable(request=f"GET {_PATH}", reason="the answer holds no list 'secrets'")
        ids_by_name |= {str(secret["name"]): str(secret["id"]) for secret in secrets}
        pagination = answer.get("pagination")
        if not isinstance(pagination, dict) or not pagination.get("hasNextPage"):
            return ids_by_name
        cursor = str(pagination.get("nextCursor"))
    raise ApiUnreachable(request=f"GET {_PATH}", reason="the pages of the answer do not end")


def make_secret(management_api: ManagementApi, secret_name: str, value: str) -> None:
    """Make a secret. It is looked up before another try, because a second one of its name would be refused."""
    try:
        management_api.submit_once(_PATH, {"name": secret_name, "value": value})
    except ApiUnreachable:
        # The answer was lost; the secret perhaps not.
        if secret_name not in list_secrets(management_api):
            raise


def remove_secret(management_api: ManagementApi, identifier: str) -> None:
    """Remove a secret."""
    management_api.send_request("DELETE", f"{_PATH}/{identifier}")
