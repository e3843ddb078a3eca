"""Dynamic prompts: comments taken out, and one choice of every `{a|b}`, as ComfyUI's page does before it submits."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Choose: TypeAlias = Callable[[Sequence[str]], str]

_LINE_ENDS = re.compile("[\n\r\u2028\u2029]")
_ESCAPED = re.compile(r"\\([{}|])")


class TooMuchText(Exception):
    """The braces of a text are nested so deeply that reading them would take for ever."""


@dataclass(slots=True)
class CharacterBudget:
    """How many more characters may be read between braces, in all texts of a workflow together.

    A text of the field is a few kilobytes and two or three levels deep; each level reads what is inside it again.
    """

    characters: int = 1_000_000

    def spend_characters(self, count: int) -> None:
        """Raises `TooMuchText` when nothing is left."""
        self.characters -= count
        if self.characters < 0:
            raise TooMuchText


@dataclass(slots=True)
class _Level:
    text: str
    at: int = 0
    done: list[str] = field(default_factory=list)


def expand_dynamic_prompt(text: str, choose: Choose, budget: CharacterBudget) -> str:
    """The text with comments removed and choices made. Raises `TooMuchText` for hostile nesting."""
    levels = [_Level(remove_comments(text))]
    while True:
        level = levels[-1]
        start = _next_special(level)
        if start is None:
            finished = _ESCAPED.sub(r"\1", "".join(level.done))
            levels.pop()
            if not levels:
                return finished
            levels[-1].done.append(finished)
            continue
        options, level.at = _split_options(level.text, start + 1)
        budget.spend_characters(level.at - start)
        levels.append(_Level(remove_comments(choose(options))))


def remove_comments(text: str) -> str:
    """Take out `/* ... */` and `// ...` to the end of the line; a comment that never closes is none."""
    kept: list[str] = []
    at = 0
    closing = True
    while (slash := text.find("/", at)) >= 0:
        follower = text[slash + 1 : slash + 2]
        if follower == "/":
            kept.append(text[at:slash])
            end = _LINE_ENDS.search(text, slash)
            at = end.start() if end else len(text)
            continue
        close = text.find("*/", slash + 2) if follower == "*" and closing else -1
        if close >= 0:
            kept.append(text[at:slash])
            at = close + 2
            continue
        closing = closing and follower != "*"
        kept.append(text[at : slash + 1])
        at = slash + 1
    return "".join([*kept, text[at:]])


def _next_special(level: _Level) -> int | None:
    """Copy plain text up to the next opening brace, and say where that is."""
    text = level.text
    while level.at < len(text):
        brace, escape = text.find("{", level.at), text.find("\\", level.at)
        if escape >= 0 and (brace < 0 or escape < brace):
            level.done.append(text[level.at : escape + 2])
            level.at = escape + 2
            continue
        end = brace if brace >= 0 else len(text)
        level.done.append(text[level.at : end])
        level.at = end
        if brace >= 0:
            return brace
    return None


def _split_options(text: str, at: int) -> tuple[list[str], int]:
    """The choices of a block whose brace was just read, and where the text goes on; the end of the text closes it."""
    options: list[str] = []
    depth, start, index = 0, at, at
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                options.append(text[start:index])
                return options, index + 1
            depth -= 1
        elif character == "|" and depth == 0:
            options.append(text[start:index])
            start = index + 1
        index += 1
    options.append(text[start:])
    return options, len(text)
