"""Streams of a server of jobs: a deadline ends them, also one that passes before the server has answered."""

import socket

from comfypin.client.json_client import JsonClient
from comfypin.http.client import HttpClient
from comfypin.http.deadline import Deadline


def test_a_deadline_that_passes_before_the_answer_gives_no_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = JsonClient(server="s", client=HttpClient(), variable="TOKEN", has_token=False)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/events"
        with client.open_stream(url, Deadline(0.05)) as chunks:
            assert chunks is None
