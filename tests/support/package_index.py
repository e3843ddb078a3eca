"""A package index on loopback (PEP 503) over a folder of wheels and source archives, with parts of files as on PyPI."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged


@contextmanager
def package_index(folder: Path, *, whole_files_only: bool = False) -> Iterator[FaultyServer]:
    """Serve `/simple/NAME/` and `/files/WHEEL`."""

    def script(request: Request) -> Reply:
        # A local version has a plus sign, which an address may hold as %2B.
        kind, _, name = unquote(request.path).strip("/").partition("/")
        if kind == "files" and (folder / name).is_file():
            data = (folder / name).read_bytes()
            return Reply(body=data) if whole_files_only else _ranged(data, request)
        wheels = sorted(path.name for path in folder.iterdir() if _project(path.name) == name)
        if kind != "simple" or not wheels:
            return Reply(status=404)
        links = "".join(f'<a href="/files/{wheel}">{wheel}</a>\n' for wheel in wheels)
        return Reply(body=f"<html><body>{links}</body></html>".encode(), headers={"Content-Type": "text/html"})

    with faulty_server(script) as server:
        yield server


def _ranged(data: bytes, request: Request) -> Reply:
    # The last bytes of a file, which the ordinary answer of the fault server does not know.
    last_bytes = request.headers.get("range", "").removeprefix("bytes=-")
    if last_bytes.isdigit():
        start = max(0, len(data) - int(last_bytes))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", "Accept-Ranges": "bytes"}
        return Reply(status=206, headers=headers, body=data[start:])
    return ranged(data, request)


def _project(wheel: str) -> str:
    return wheel.partition("-")[0].replace("_", "-").lower()
