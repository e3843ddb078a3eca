"""Explain a failure: what it means, its exit code, and what to do.

comfypin explain LockNotFound     an error by its name, as --json prints it
comfypin explain 11               all errors of an exit code
comfypin explain --list           every name
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from comfypin.errors import ComfypinError, UsageError

_FIELD = re.compile(r"\{(\w+)[^{}]*\}")
_RAISED = re.compile(r"^Raised (?:if|when|for|with every finding when|with every reason when) ")
_PAGE = "docs/exit-codes.md"
# What helps against a whole family, as the page says it.
_FAMILY_REMEDIES = {
    "internal": "Run again with --verbose, and report it.",
    "config": "The message names the variable; docs/environment.md says what it takes.",
    "lock": "comfypin lock check LOCK lists what is wrong with a lock.",
    "workflow": "The message lists every finding, with the closest names; comfypin workflow check does, too.",
    "engine": "The engine's last log lines are in the message; --verbose shows its whole log.",
    "prompt": "The message names the node; look at its inputs.",
    "output": "Make room on the disk, or name a folder that takes files.",
    "storage": "The message has what the server said; comfypin doctor --bucket tries the bucket.",
    "env": "comfypin env status lists what is not as the lock says; comfypin realize makes it so.",
    "model": "comfypin models verify --repair fetches what is missing or changed.",
    "image": "The builder's last lines are in the message; --verbose shows all.",
    "usage": "comfypin COMMAND --help lists what there is.",
    "deploy": "comfypin runpod plan shows what would be done, and what is in the way.",
    "remote": "The message has what the server said; check --server and its token.",
    "lease": "Try again later: somebody else works on these files.",
    "sync": "comfypin sync status DIR DESTINATION lists what is pending, and why.",
    "cancelled": "Nothing: somebody asked for the end.",
}
# How a message's advice begins.
_IMPERATIVE = re.compile(
    r"(?:add|ask|check|choose|clear|correct|convert|delete|drop|export|free|get|give|install|leave|list|look|make|move|"
    r"name|pin|point|push|put|raise|realize|remove|rename|run|save|see|set|show|start|stop|take|to install|try|type|"
    r"unset|update|use|wait|write)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEntry:
    """What is known of one error: `message` has its fields in capitals, `remedy` is what it says to do."""

    name: str
    family: str
    exit_code: int
    cause: str
    message: str | None
    remedy: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `explain`."""
    parser.add_argument("name", nargs="?", metavar="NAME|CODE|FAMILY", help="an error, an exit code or a family")
    parser.add_argument("--list", action="store_true", help="list every error")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Print what is known of the errors that are named."""
    entries = sorted(list_errors(), key=lambda entry: (entry.exit_code, entry.name))
    if arguments.name is None and not arguments.list:
        raise UsageError("comfypin explain needs a name, an exit code or a family; --list shows every name.")
    shown_entries = entries if arguments.name is None else _find_entries(arguments.name, entries)
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in shown_entries], indent=2))
    elif len(shown_entries) == 1:
        print("\n".join(_describe_entry(shown_entries[0])))
    else:
        width = max(len(entry.name) for entry in shown_entries)
        print("\n".join(f"{entry.exit_code:>3}  {entry.name:<{width}}  {entry.cause}" for entry in shown_entries))
    return 0


def list_errors() -> Iterator[ErrorEntry]:
    """Yield every declared error. Imports the modules that declare them, and no client library."""
    import comfypin

    for module in pkgutil.walk_packages(comfypin.__path__, "comfypin."):
        if re.search(r"errors?$", module.name) or module.name.startswith("comfypin.cli."):
            importlib.import_module(module.name)
    unseen: list[type[ComfypinError]] = [ComfypinError]
    seen: set[type[ComfypinError]] = set()
    while unseen:
        for error in unseen.pop().__subclasses__():
            if error in seen or not error.__module__.startswith("comfypin."):
                continue
            seen.add(error)
            unseen.append(error)
            yield _make_entry(error)


def _make_entry(error: type[ComfypinError]) -> ErrorEntry:
    template = error.__dict__.get("template")
    message = _shown(template, error) if isinstance(template, str) else None
    cause = inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return ErrorEntry(
        name=error.__name__,
        family=error.family,
        exit_code=error.exit_code,
        cause=_sentence(_RAISED.sub("", cause)),
        message=message,
        remedy=error.__dict__.get("explained_remedy")
        or _remedy_in(message, _shown(error.__dict__.get("command_hint") or "", error))
        or _FAMILY_REMEDIES.get(error.family, _FAMILY_REMEDIES["internal"]),
    )


def _shown(template: str, error: type[ComfypinError]) -> str:
    """Return a template with its fields as capitals; those that only complete the sentence are left out."""

    def show_field(field: re.Match[str]) -> str:
        before, after = template[: field.start()][-1:], template[field.end() :][:1]
        # Joined to a word or its full stop, it is a list, a hint or nothing: it brings its own space.
        is_joined = re.match(r"[\w.:)}]", before) is not None or after.isalpha()
        default = getattr(error, field[1], None)
        is_optional = field[1].startswith("_") or field[1] in _COMPLETIONS
        return (
            "" if is_optional or (is_joined and (isinstance(default, property) or default == "")) else field[1].upper()
        )

    return re.sub(r" \.(?=\s|$)", ".", " ".join(_FIELD.sub(show_field, template).split())).removesuffix(":")


# Properties that add a list, a hint or nothing.
_COMPLETIONS = frozenset({"listed", "log_lines", "suggestion", "listed_problems", "location", "alternatives", "sample"})


def _remedy_in(message: str | None, command_hint: str) -> str | None:
    """Return the part of a message that says what to do: after a semicolon, or from a later sentence on."""
    text = message or ""
    parts = (text[separator.end() :] for separator in re.finditer(r";\s+|(?<=[.:)])\s+(?=[A-Z])", text))
    remedy_text = next((part for part in parts if _IMPERATIVE.match(part)), "")
    remedy = " ".join(part for part in (_sentence(remedy_text) if remedy_text else "", command_hint) if part)
    return remedy or None


def _sentence(sentence: str) -> str:
    sentence = sentence.strip()
    return f"{sentence[:1].upper()}{sentence[1:]}" + ("" if sentence.endswith((".", ":", "?")) else ".")


def _find_entries(wanted_name: str, entries: list[ErrorEntry]) -> list[ErrorEntry]:
    by_name = [entry for entry in entries if entry.name.casefold() == wanted_name.casefold()]
    if by_name:
        return by_name
    of_code = [entry for entry in entries if wanted_name in (str(entry.exit_code), entry.family)]
    if of_code:
        return of_code
    from comfypin.cli.main import find_near

    near = find_near(wanted_name, [entry.name for entry in entries])
    hint = f"did you mean {near}?" if near else "--list shows every name"
    raise UsageError(f"There is no error, exit code or family {wanted_name!r}; {hint}.")


def _describe_entry(entry: ErrorEntry) -> Iterator[str]:
    yield f"{entry.name} (family {entry.family}, exit code {entry.exit_code})"
    yield f"  cause    {entry.cause}"
    if entry.message:
        yield f"  says     {entry.message}"
    yield f"  remedy   {entry.remedy}"
    yield f"  more     {_PAGE}; comfypin explain {entry.exit_code} lists its family"
