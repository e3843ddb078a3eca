"""A spot pod whose answer got lost is found by its name: a second one would be billed, too."""

from typing import Any

import pytest

from comfypin.runpod.errors import ApiRefused, ApiUnreachable
from comfypin.runpod.spot_pods import make_spot_pod

REQUEST = {"name": "mine", "image": "i", "args": "a", "cloud": "SECURE", "disk": 10, "gpu": {"id": "g"}, "env": {}}


def refused(status: int) -> ApiRefused:
    return ApiRefused(request="POST /graphql", status=status, title="No", detail="gave up")


class Account:
    """An account with one pod, whose GraphQL fails in some way."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.asked = 0

    def submit_once(self, _path: str, _body: object) -> object:
        self.asked += 1
        raise self.failure

    def list_resources(self, _kind: str) -> list[dict[str, object]]:
        return [{"id": "p1", "name": "mine"}]


@pytest.mark.parametrize("failure", [ApiUnreachable(request="POST /graphql", reason="cut"), refused(502), refused(504)])
def test_a_pod_whose_answer_was_lost_is_found(failure: Exception) -> None:
    account: Any = Account(failure)
    assert make_spot_pod(account, REQUEST, bid=0.2)["id"] == "p1"
    assert account.asked == 1


def test_a_refusal_made_nothing() -> None:
    account: Any = Account(refused(401))
    with pytest.raises(ApiRefused):
        make_spot_pod(account, REQUEST, bid=0.2)
