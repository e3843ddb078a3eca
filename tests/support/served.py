"""A folder behind Python's own HTTP server, which gives whole files only."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder by HTTP, and the paths whose content was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: object, outputfile: object) -> None:
            # Not each GET: a client may only ask whether what it has is still right, which has no content.
            asked.append(self.path)
            super().copyfile(source, outputfile)  # type: ignore[type-var]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
