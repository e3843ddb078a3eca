"""Requirement files of ComfyUI and of nodes to PEP 508 lines, each with who asks for it (pure).

A file is read as pip reads it, but nothing in it may choose where packages come from: indexes of a node are reported
and left out, local paths are refused.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=)?(.+)")
_PER_REQUIREMENT = re.compile(r"\s+--(?:hash|config-settings?|global-option|install-option)[ =].*$")
_URL = re.compile(r"(?:git\+)?(?:https?|ssh)://\S+")
_BARE_URL = re.compile(
    r"(?:(?:git\+)(?:https?|ssh)://\S+|https?://\S+\.(?:whl|zip|tar\.gz)(?:[?#]\S*)?)(?P<marker>\s+;\s*.+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One requirement and who asks for it; `name` is normalized, None for a URL that does not say it."""

    text: str
    name: str | None
    origin: str

    def __str__(self) -> str:
        return f"{self.origin} wants {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What all parts of a release ask for, and what was read and is not obeyed or cannot be."""

    requirements: tuple[Need, ...] = ()
    constraints: tuple[Need, ...] = ()
    ignored: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    def __add__(self, other: "Needs") -> "Needs":
        return Needs(
            requirements=self.requirements + other.requirements,
            constraints=self.constraints + other.constraints,
            ignored=self.ignored + other.ignored,
            unusable=self.unusable + other.unusable,
        )


@dataclass(slots=True)
class _Reader:
    """Gathers what a file and the files that it includes say."""

    origin: str
    read: Callable[[str], str | None]
    dropped: frozenset[str]
    requirements: list[Need] = field(default_factory=list)
    constraints: list[Need] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def file(self, path: str, into: list[Need]) -> None:
        if path in self.seen:
            return
        self.seen.add(path)
        text = self.read(path)
        if text is None:
            self.unusable.append(f"{self.origin}: {path} is not there")
            return
        for number, line in logical_lines(text):
            self._line(line, f"{self.origin} ({path}, line {number})", path, into)

    def _line(self, line: str, place: str, path: str, into: list[Need]) -> None:
        if included := _INCLUDE.fullmatch(line):
            folder = path.rpartition("/")[0]
            inner = _joined(folder, included[1].strip("\"' "))
            if inner is None:
                self.unusable.append(f"{place}: {line} leads out of the repository")
            else:
                self.file(inner, self.constraints if line.startswith(("-c", "--c")) else into)
        elif line.startswith(("-e", "--editable")):
            self.unusable.append(f"{place}: {line} is an editable install")
        elif line.startswith("-"):
            self.ignored.append(f"{place}: {line}")
        else:
            need = parse_need(line, self.origin)
            if line in self.dropped or (need and need.name in self.dropped):
                self.ignored.append(f"{place}: {line}")
            elif need is None:
                self.unusable.append(f"{place}: {line}")
            else:
                into.append(need)


def read_needs(
    path: str, *, origin: str, read: Callable[[str], str | None], dropped: frozenset[str] = frozenset()
) -> Needs:
    """The needs of a requirement file. `read` gives a file's text by its path; `dropped` are lines or names to skip."""
    reader = _Reader(origin=origin, read=read, dropped=dropped | {plain_name(name) for name in dropped})
    reader.file(path, reader.requirements)
    return Needs(
        requirements=tuple(reader.requirements),
        constraints=tuple(reader.constraints),
        ignored=tuple(reader.ignored),
        unusable=tuple(reader.unusable),
    )


def decoded(data: bytes) -> str:
    """The text of a requirement file, which pip reads by its byte order mark too: PowerShell writes UTF-16."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, errors="replace")
    return data.decode(errors="replace")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a requirement file without comments, continued ones joined, with their numbers."""
    whole, first = "", 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        first = first if whole else number
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            whole += line.rstrip()[:-1] + " "
            continue
        stripped = _COMMENT.sub("", whole + line).strip()
        whole = ""
        if stripped:
            yield first, _PER_REQUIREMENT.sub("", stripped)


def parse_need(line: str, origin: str) -> Need | None:
    """One requirement line, None where it is none that another machine could resolve."""
    from packaging.requirements import InvalidRequirement, Requirement

    if _BARE_URL.fullmatch(line):
        return Need(text=line, name=_egg(line), origin=origin)
    try:
        parsed = Requirement(line)
    except InvalidRequirement:
        return None
    if parsed.url is not None and not _URL.fullmatch(parsed.url):
        return None
    return Need(text=str(parsed), name=plain_name(parsed.name), origin=origin)


def _egg(url: str) -> str | None:
    match = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", url)
    return plain_name(match[1]) if match else None


def plain_name(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _joined(folder: str, path: str) -> str | None:
    parts: list[str] = [part for part in folder.split("/") if part]
    if path.startswith("/") or "://" in path:
        return None
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
