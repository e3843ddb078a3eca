"""Parses requirement files of ComfyUI and of nodes into PEP 508 lines, each with who asks for it (pure).

A file is read as pip reads it, but nothing in it may choose where packages come from: indexes of a node are reported
and left out, local paths are refused.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from comfypin.text_encoding import decode_text

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=)?(.+)")
# pip reads over options after a requirement that are for a whole file, which people write there all the same.
_FILE_OPTIONS = re.compile(
    r"(?:\s+(?:(?:-i|-f|--(?:(?:extra-)?index-url|find-links|trusted-host|no-binary|only-binary))(?:[ =]+[^\s-]\S*)"
    r"|--(?:pre|no-index|prefer-binary|require-hashes)))+\s*$"
)
# They steer one pip run; the resolver finds hashes by itself.
_PER_REQUIREMENT = re.compile(r"\s+--(?:hash|config-settings?|global-option|install-option)[ =]\S+")
# An editable install from git is an ordinary one with its sources at hand, so the sources alone are left away.
_EDITABLE_GIT = re.compile(r"(?:-e|--editable)[ =]\s*(git\+(?:https?|ssh)://\S+)")
# `numpy<1.24>=1.18`: pip took it until 24.1, and packs of those years have it.
_MISSING_COMMA = re.compile(r"(?<=[\w.*])\s*(?=(?:[<>=!~]=|[<>])\s*\d)")
_UNSEPARATED = re.compile(
    r"(?P<package>[A-Za-z0-9][\w.-]*(?:\[[^]]*\])?)\s*(?P<versions>[<>=!~][^;@]*)(?P<marker>;.*)?"
)
_URL = re.compile(r"(?:git\+)?(?:https?|ssh)://\S+")
# pip accepts a URL without a name; PEP 508 does not, so these are recognised before it is asked.
_BARE_URL = re.compile(
    r"(?P<url>(?:git\+)(?:https?|ssh)://\S+?|https?://\S+\.(?:whl|zip|tar\.gz)(?:[?#]\S*?)?)"
    # pip needs a space after the semicolon of a URL, uv one before it.
    r"(?:\s+;\s*(?P<spaced>.+)|;\s+(?P<marker>.+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementLine:
    """One requirement and who asks for it; `name` is normalized, None for a URL that does not say it."""

    text: str
    name: str | None
    origin: str

    def __str__(self) -> str:
        return f"{self.origin} wants {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementSet:
    """What all parts of a release ask for, what was read but is ignored or unusable, and what was mended to be read."""

    requirements: tuple[RequirementLine, ...] = ()
    constraints: tuple[RequirementLine, ...] = ()
    ignored: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    def __add__(self, other: "RequirementSet") -> "RequirementSet":
        return RequirementSet(
            requirements=self.requirements + other.requirements,
            constraints=self.constraints + other.constraints,
            ignored=self.ignored + other.ignored,
            unusable=self.unusable + other.unusable,
            mended=self.mended + other.mended,
        )


@dataclass(slots=True)
class _RequirementReader:
    """Collects what a file and the files that it includes ask for."""

    origin: str
    read: Callable[[str], str | None]
    dropped: frozenset[str]
    requirements: list[RequirementLine] = field(default_factory=list)
    constraints: list[RequirementLine] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def read_file(self, file_path: str, into: list[RequirementLine]) -> None:
        # Files that include each other would never end.
        if file_path in self.seen:
            return
        self.seen.add(file_path)
        file_text = self.read(file_path)
        if file_text is None:
            self.unusable.append(f"{self.origin}: {file_path} is not there")
            return
        for line_number, line in logical_lines(file_text):
            self._read_line(line, f"{self.origin} ({file_path}, line {line_number})", file_path, into)

    def _read_line(self, requirement_line: str, line_place: str, path: str, destination: list[RequirementLine]) -> None:
        if included := _INCLUDE.fullmatch(requirement_line):
            folder = path.rpartition("/")[0]
            # An include may not reach files outside the repository: it was written by strangers.
            included_path = _join_inside(folder, included[1].strip("\"' "))
            if included_path is None:
                self.unusable.append(f"{line_place}: {requirement_line} leads out of the repository")
            else:
                self.read_file(
                    included_path, self.constraints if requirement_line.startswith(("-c", "--c")) else destination
                )
        elif editable := _EDITABLE_GIT.fullmatch(requirement_line):
            self._read_requirement(editable[1], line_place, destination)
        elif requirement_line.startswith(("-e", "--editable")):
            self.unusable.append(f"{line_place}: {requirement_line} is an editable install")
        # Indexes and find-links among them: only the user says where packages come from.
        elif requirement_line.startswith("-"):
            self.ignored.append(f"{line_place}: {requirement_line}")
        else:
            self._read_requirement(requirement_line, line_place, destination)

    def _read_requirement(self, requirement_line: str, line_place: str, destination: list[RequirementLine]) -> None:
        without_hashes = _PER_REQUIREMENT.sub("", requirement_line)
        requirement_text = _FILE_OPTIONS.sub("", without_hashes)
        if options := without_hashes[len(requirement_text) :].strip():
            # An index among them is worth knowing when nothing fits.
            self.ignored.append(f"{line_place}: {options}")
        requirement = parse_requirement(requirement_text, self.origin)
        if requirement is None and (separated := _separate_versions(requirement_text)):
            requirement = parse_requirement(separated, self.origin)
            if requirement is not None:
                self.mended.append(f"{line_place}: {requirement_text} lacks a comma, so it is read as {separated}")
                requirement_text = separated
        names = requirement_names(requirement) if requirement else frozenset()
        if {requirement_line, requirement_text, *names} & self.dropped:
            self.ignored.append(f"{line_place}: {requirement_text}")
        elif requirement is None:
            self.unusable.append(f"{line_place}: {requirement_line}")
        else:
            destination.append(requirement)


def _separate_versions(requirement_text: str) -> str | None:
    """Return a requirement with commas between its versions, None if it does not look like one that lacks them."""
    match = _UNSEPARATED.fullmatch(requirement_text)
    if match is None:
        return None
    return f"{match['package']}{_MISSING_COMMA.sub(',', match['versions'])}{match['marker'] or ''}"


def read_requirements(
    path: str, *, origin: str, read: Callable[[str], str | None], dropped: frozenset[str] = frozenset()
) -> RequirementSet:
    """Parse a requirement file. `read` gives a file's text by its path; `dropped` are lines or names to skip."""
    reader = _RequirementReader(
        origin=origin, read=read, dropped=dropped | {normalize_package_name(dropped_line) for dropped_line in dropped}
    )
    reader.read_file(path, reader.requirements)
    return RequirementSet(
        requirements=tuple(reader.requirements),
        constraints=tuple(reader.constraints),
        ignored=tuple(reader.ignored),
        unusable=tuple(reader.unusable),
        mended=tuple(reader.mended),
    )


def decode_requirements(file_bytes: bytes) -> str:
    """Decode a requirement file as pip does, by its byte order mark too: PowerShell writes UTF-16.

    https://pip.pypa.io/en/stable/reference/requirements-file-format/
    """
    return decode_text(file_bytes, errors="replace")


def logical_lines(file_text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a requirement file with their numbers, continued ones joined, without comments."""
    joined_line, first_number = "", 0
    # The empty line at the end closes a file that ends in a backslash.
    for line_number, requirement_line in enumerate([*file_text.splitlines(), ""], start=1):
        first_number = first_number if joined_line else line_number
        if requirement_line.rstrip().endswith("\\") and not requirement_line.lstrip().startswith("#"):
            joined_line += requirement_line.rstrip()[:-1]
            continue
        stripped = _COMMENT.sub("", joined_line + requirement_line).strip()
        joined_line = ""
        if stripped:
            yield first_number, stripped


def parse_requirement(requirement_line: str, origin: str) -> RequirementLine | None:
    """Parse one requirement line; return None if no other machine could resolve it."""
    from packaging.requirements import InvalidRequirement, Requirement

    if bare := _BARE_URL.fullmatch(requirement_line):
        marker = bare["spaced"] or bare["marker"]
        requirement_text = f"{bare['url']} ; {marker}" if marker else bare["url"]
        return RequirementLine(
            text=requirement_text, name=_egg_name(bare["url"]) or _wheel_name(bare["url"]), origin=origin
        )
    try:
        parsed = Requirement(requirement_line)
    except InvalidRequirement:
        return None
    if parsed.url is not None and not _URL.fullmatch(parsed.url):
        return None
    return RequirementLine(text=str(parsed), name=normalize_package_name(parsed.name), origin=origin)


def _egg_name(url: str) -> str | None:
    match = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", url)
    return normalize_package_name(match[1]) if match else None


def _wheel_name(url: str) -> str | None:
    """Return the name that a wheel's file begins with; its fields are joined by dashes (PEP 427)."""
    file_name = re.split(r"[?#]", url, maxsplit=1)[0].rpartition("/")[2]
    package_name, dash, _ = file_name.partition("-")
    return normalize_package_name(package_name) if dash and file_name.endswith(".whl") else None


def requirement_names(requirement: RequirementLine) -> frozenset[str]:
    """Return the names that a user may call a requirement by; one from git without a name by its repository's."""
    if requirement.name is not None:
        return frozenset({requirement.name})
    address = re.split(r"[#?;\s]", requirement.text, maxsplit=1)[0].partition("://")[2]
    # What follows an "@" in the path is the ref; one before the first "/" belongs to a user.
    project = re.sub(r"(?<=/)([^/@]+)@.*$", r"\1", address).rstrip("/").rpartition("/")[2].removesuffix(".git")
    return frozenset({normalize_package_name(project)}) if project else frozenset()


def apply_overrides(requirement_set: RequirementSet, overrides: Iterable[str]) -> RequirementSet:
    """Return the requirements with addresses without a name replaced by the package that an override is for.

    Resolvers compare overrides by name. They would fetch such an address to learn its name, also one that is gone.
    """
    overridden = {
        name for text in overrides if (parsed := parse_requirement(text, "--override")) and (name := parsed.name)
    }

    def replace_address(requirement: RequirementLine) -> RequirementLine:
        names = requirement_names(requirement) & overridden
        if requirement.name is not None or not names:
            return requirement
        (name,) = names
        _, semicolon, marker = requirement.text.partition(" ; ")
        return replace(requirement, text=f"{name}{semicolon}{marker}", name=name)

    return replace(requirement_set, requirements=tuple(map(replace_address, requirement_set.requirements)))


def normalize_package_name(package_name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package_name).lower()


def _join_inside(folder: str, file_path: str) -> str | None:
    path_parts: list[str] = [part for part in folder.split("/") if part]
    if file_path.startswith("/") or "://" in file_path:
        return None
    for path_part in file_path.split("/"):
        if path_part == "..":
            if not path_parts:
                return None
            path_parts.pop()
        elif path_part not in ("", "."):
            path_parts.append(path_part)
    return "/".join(path_parts)
