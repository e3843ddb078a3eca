"""Webhooks at private addresses are refused when a job is sent, as far as the address itself says it."""

import pytest

from comfypin.server.errors import RequestInvalid
from comfypin.server.request_bodies import require_public_webhook


@pytest.mark.parametrize("host", ["10.0.0.7:80", "127.1", "localhost", "[::1]", "0xa9fea9fe"])
def test_a_private_address_is_refused_with_the_flag_that_allows_it(host: str) -> None:
    with pytest.raises(RequestInvalid, match="--allow-private-inputs"):
        require_public_webhook(f"https://{host}/hook")


@pytest.mark.parametrize("webhook", [None, "https://hooks.example/x", "https://9.9.9.9/x"])
def test_others_are_taken(webhook: str | None) -> None:
    require_public_webhook(webhook)
