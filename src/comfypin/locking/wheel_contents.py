"""Reads what wheels hold from parts of them: their RECORD, at the end of the file, tells every path and digest."""

import base64
import binascii
import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from comfypin.atomic_files import write_atomically
from comfypin.http.proxies import Proxies, ProxyInvalid
from comfypin.lock.model import PackagePin
from comfypin.lock.overlaps import WheelContents
from comfypin.lock.requirements import normalize_package_name
from comfypin.locking.pylock import file_name_of_url

if TYPE_CHECKING:
    from comfypin.http.client import HttpClient

# Usually enough for a RECORD and the zip's own list, which are both at the end.
_TAIL_BYTES = 1 << 16
# A RECORD has some 100 bytes a file; the largest (torch) has 1.5 MB.
_MAX_RECORD_BYTES = 64 << 20
# From servers that give no parts, only small wheels are fetched whole.
_MAX_WHOLE_BYTES = 64 << 20
# Small requests: the time is all latency.
_WORKERS = 16
# One ranged request to an index.
_TIMEOUT_S = 30.0
# Where the folders of `NAME.data` end up, relative to site-packages (PEP 427).
_DATA_FOLDERS = {
    "purelib": "",
    "platlib": "",
    "scripts": "../../../bin/",
    "data": "../../../",
    "headers": "../../../include/",
}


class WheelUnread(Exception):
    """Raised inside this module for a wheel that cannot be read in parts; callers get a list of such wheels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelReader:
    """Opens wheels where they are, and keeps notes about them by digest, because a wheel never changes.

    Without a `notes_folder` nothing is kept.
    """

    notes_folder: Path | None = None
    proxies: Proxies = field(default_factory=Proxies)

    def read_contents(self, pins: Iterable[PackagePin]) -> tuple[tuple[WheelContents, ...], tuple[str, ...]]:
        """Return what each wheel holds, and the names of packages that could not be looked into (sdists among them)."""
        pin_list = list({(pin.name, pin.url): pin for pin in pins}.values())
        records = self.map_wheels(pin_list, "record", _read_record)
        contents, unread = [], []
        for package_pin, record in zip(pin_list, records, strict=True):
            if record is None:
                unread.append(package_pin.name)
                continue
            files = cast("Mapping[str, str | None]", record)
            package_name = normalize_package_name(package_pin.name)
            contents.append(WheelContents(name=package_name, version=package_pin.version, files=files))
        return tuple(contents), tuple(sorted(set(unread)))

    def map_wheels(
        self,
        pins: Sequence[PackagePin],
        kind: str,
        read: Callable[[zipfile.ZipFile], object],
        *,
        part_bytes: int = _TAIL_BYTES,
        workers: int = _WORKERS,
    ) -> list[object]:
        """Return what `read` finds in each wheel, in order; None for those that cannot be opened.

        `kind` names the note that is kept of it; `part_bytes` is how much is asked for at once.
        """
        # Imported when wheels are read: commands that only parse flags need no HTTP.
        from comfypin.http.client import HttpClient, HttpTransport
        from comfypin.http.errors import HttpError

        transport = HttpTransport(proxies=self.proxies, timeout_s=_TIMEOUT_S)

        def read_one(package_pin: PackagePin) -> object:
            note_path = self._note_path(package_pin, kind)
            if note_path is not None and (note := _read_note(note_path)) is not None:
                return note
            try:
                with _open_wheel(http_client, package_pin, part_bytes) as wheel:
                    wheel_facts = read(wheel)
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, HttpError, ProxyInvalid, WheelUnread):
                return None
            if note_path is not None:
                write_atomically(note_path, json.dumps(wheel_facts).encode(), durable=False)
            return wheel_facts

        with closing(HttpClient(transport=transport)) as http_client, ThreadPoolExecutor(workers) as pool:
            return list(pool.map(read_one, pins))

    def _note_path(self, package_pin: PackagePin, kind: str) -> Path | None:
        if self.notes_folder is None or len(package_pin.sha256) != 1:
            return None
        self.notes_folder.mkdir(parents=True, exist_ok=True)
        return self.notes_folder / f"{package_pin.sha256[0].hex}.{kind}.json"


@contextmanager
def _open_wheel(http_client: "HttpClient", package_pin: PackagePin, part_bytes: int) -> Iterator[zipfile.ZipFile]:
    url = (package_pin.url or "").partition("#")[0]
    if not file_name_of_url(url).endswith(".whl"):
        raise WheelUnread(f"{package_pin.name} has no wheel")
    scheme = urlsplit(url).scheme
    if scheme == "file":
        with zipfile.ZipFile(Path(unquote(urlsplit(url).path))) as wheel:
            yield wheel
        return
    if scheme not in {"http", "https"}:
        raise WheelUnread(url)
    from comfypin.http.seekable_file import SeekableHttpFile

    remote_file = SeekableHttpFile(http_client, url)
    file: io.BufferedIOBase = io.BufferedReader(remote_file, buffer_size=part_bytes)
    if not remote_file.in_parts:
        if not 0 < remote_file.size_bytes <= _MAX_WHOLE_BYTES:
            raise WheelUnread(url)
        with http_client.get(url) as response:
            file = io.BytesIO(response.read_bytes(_MAX_WHOLE_BYTES))
    with file, zipfile.ZipFile(file) as wheel:
        yield wheel


def _read_record(wheel: zipfile.ZipFile) -> dict[str, str | None]:
    """Return every path that a wheel installs, with its sha256. Raises `WheelUnread`."""
    records = [
        member
        for member in wheel.infolist()
        if member.filename.count("/") == 1 and member.filename.endswith(".dist-info/RECORD")
    ]
    if len(records) != 1 or records[0].file_size > _MAX_RECORD_BYTES:
        raise WheelUnread("no RECORD")
    record_text = wheel.read(records[0]).decode(errors="replace")
    rows = (row for row in csv.reader(io.StringIO(record_text, newline="")) if len(row) >= 2)
    return {_installed_path(row[0]): _hex_digest(row[1]) for row in rows}


def _installed_path(path: str) -> str:
    first, _, rest = path.replace("\\", "/").partition("/")
    if not first.endswith(".data"):
        return path
    kind, _, inner = rest.partition("/")
    return _DATA_FOLDERS.get(kind, f"{first}/{kind}/") + inner


def _hex_digest(digest_text: str) -> str | None:
    algorithm, _, encoded = digest_text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    except (binascii.Error, ValueError):
        return None


def _read_note(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
