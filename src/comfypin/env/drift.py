"""Defines one difference between an env and its lock."""

from collections.abc import Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue

# New files that could run are drift; the notes, caches and settings that nodes write are not.
CODE_SUFFIXES = (".py", ".pyc", ".so", ".pth", ".js", ".sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Describes one difference: a stable `kind` for machines, the pin it breaks, a sentence, and the files it is
    about.
    """

    kind: str
    subject: str
    text: str
    paths: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        return {"kind": self.kind, "subject": self.subject, "text": self.text, "paths": list(self.paths)}


def shorten_list(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(paths[:5]) + more
