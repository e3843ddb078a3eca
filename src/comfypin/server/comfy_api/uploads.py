"""An upload as it comes: multipart parts read one by one, the file's bytes hashed and written on the way."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from comfypin.plurals import format_limit
from comfypin.server.comfy_api.assets import AssetLabel
from comfypin.server.comfy_api.blobs import Incoming, IncomingFile, is_hash
from comfypin.server.comfy_api.errors import ApiFailure, invalid_request

MOST_TAGS = 50
MULTIPART_BYTES = 1_000_000
"""What a body may have beside the bytes of its file."""
# The form has few fields; a body of empty parts would keep the parser busy.
_MOST_PARTS = 100
# Paths and tags are short; fields are held in memory, unlike the file.
_LONGEST_FIELD = 8192
# A thread is woken for each block: small ones would cost more than writing them.
_WRITTEN_AT_ONCE = 1 << 20
_SHORTEST_S, _LONGEST_S = 60, 604_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A whole upload: bytes on the disk, what the client says about them, and the hash that it expects."""

    incoming: Incoming
    label: AssetLabel
    expected_hash: str | None


class _Form:
    """The parser's callbacks: collects fields, and the bytes of `file` that have not been written yet."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.has_file = False
        self.has_ended = False
        self.unwritten = bytearray()
        self._parts = 0
        self._header = b""
        self._value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._content = bytearray()
        self._is_file = False

    def callbacks(self) -> Mapping[str, object]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise invalid_request(f"it has more than {_MOST_PARTS} parts")
        self._disposition, self._content, self._is_file = {}, bytearray(), False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        # A header may come in several pieces, cut where the network cut it.
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value)
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        self._is_file = self._disposition.get(b"name") == b"file"
        if self._is_file and self.has_file:
            raise invalid_request("it has two parts `file`")
        self.has_file |= self._is_file

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.unwritten += data[start:end]
            return
        self._content += data[start:end]
        if len(self._content) > _LONGEST_FIELD:
            raise invalid_request(f"a field of it is longer than {_LONGEST_FIELD} bytes")

    def _part_end(self) -> None:
        if self._is_file:
            return
        field_name = self._disposition.get(b"name", b"").decode(errors="replace")
        try:
            self.fields.setdefault(field_name, []).append(self._content.decode())
        except UnicodeDecodeError as exc:
            raise invalid_request(f"its field `{field_name[:50]}` is not UTF-8 text") from exc

    def _end(self) -> None:
        self.has_ended = True


async def read_upload(
    content_type: str, chunks: AsyncIterator[bytes], incoming_file: IncomingFile, *, most_bytes: int
) -> Upload:
    """Read an upload into `file`. Raises `ApiFailure`, `OSError`, and `ClientDisconnect` if it was cut off."""
    form = _Form()
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise invalid_request("an upload is multipart/form-data, with a boundary")
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks:
            parser.write(chunk)
            if incoming_file.size_bytes + len(form.unwritten) > most_bytes:
                reason = f"The file is larger than {format_limit(most_bytes)}, the most that this server takes."
                raise ApiFailure(422, "asset_too_large", reason)
            if len(form.unwritten) >= _WRITTEN_AT_ONCE:
                await _write(form, incoming_file)
    except FormParserError as exc:
        raise invalid_request("its multipart body cannot be read") from exc
    # The parser takes half a body for a body: only the last boundary says that all of it came.
    if not form.has_ended:
        raise invalid_request("its multipart body has no end")
    if not form.has_file:
        raise invalid_request("it has no part `file`")
    label, expected_hash = _label(form.fields)
    await _write(form, incoming_file)
    return Upload(incoming=await asyncio.to_thread(incoming_file.finish), label=label, expected_hash=expected_hash)


async def _write(form: _Form, incoming_file: IncomingFile) -> None:
    form_bytes, form.unwritten = bytes(form.unwritten), bytearray()
    await asyncio.to_thread(incoming_file.write, form_bytes)


def _label(fields: Mapping[str, Sequence[str]]) -> tuple[AssetLabel, str | None]:
    expected = _only(fields, "expected_hash")
    if expected is not None and not is_hash(expected):
        raise invalid_request("`expected_hash` must be blake3: and 64 hexadecimal digits")
    seconds = _only(fields, "expires_in")
    # Before int(), which takes digits of all alphabets, and long for a million of them.
    if seconds is not None and not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise invalid_request("`expires_in` must be seconds")
    label = read_label(
        content_type=_required(fields, "content_type"),
        file_path=_required(fields, "file_path"),
        tags=list(fields.get("tags", ())),
        expires_in=None if seconds is None else int(seconds),
    )
    return label, expected


def read_label(*, content_type: str, file_path: object, tags: object, expires_in: object) -> AssetLabel:
    """Read what a client says about bytes. Raises `ApiFailure`."""
    if not content_type or len(content_type) > 255 or not content_type.isascii() or not content_type.isprintable():
        raise invalid_request("`content_type` must be a media type, such as image/png")
    if file_path is not None and not (isinstance(file_path, str) and _is_path(file_path)):
        raise invalid_request("`file_path` must be a relative path of at most 1024 characters")
    if not isinstance(tags, list) or len(tags) > MOST_TAGS or not all(map(_is_tag, tags)):
        raise invalid_request(f"`tags` must be at most {MOST_TAGS} texts of at most 255 characters")
    if expires_in is not None and (
        isinstance(expires_in, bool) or not isinstance(expires_in, int) or not _SHORTEST_S <= expires_in <= _LONGEST_S
    ):
        raise invalid_request(f"`expires_in` must be {_SHORTEST_S} to {_LONGEST_S} seconds")
    return AssetLabel(content_type=content_type, file_path=file_path, tags=tuple(tags), expires_in_s=expires_in)


def _is_path(path_text: str) -> bool:
    parts = path_text.split("/")
    return (
        0 < len(path_text) <= 1024
        and path_text.isprintable()
        and ".." not in parts
        and parts[0] != ""
        and "\\" not in path_text
    )


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and len(tag) <= 255 and tag.isprintable()


def _only(fields: Mapping[str, Sequence[str]], field_name: str) -> str | None:
    values = fields.get(field_name, ())
    if len(values) > 1:
        raise invalid_request(f"it has the field `{field_name}` twice")
    return values[0] if values else None


def _required(fields: Mapping[str, Sequence[str]], field_name: str) -> str:
    value = _only(fields, field_name)
    if value is None:
        raise invalid_request(f"it has no field `{field_name}`")
    return value
