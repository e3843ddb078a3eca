"""Dynamic prompts: strip comments and choose one option of every `{a|b}`, as ComfyUI's page does before it submits."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Choose: TypeAlias = Callable[[Sequence[str]], str]

# JavaScript's line terminators, which end a comment on the page: two more than a text file's.
_LINE_ENDS = re.compile("[\n\r\u2028\u2029]")
# A backslash keeps a brace or a bar as text; the page drops the backslash once all choices are made.
_ESCAPED = re.compile(r"\\([{}|])")


class TooMuchText(Exception):
    """Raised if the braces of a text are nested so deeply that reading them would take for ever."""


@dataclass(slots=True)
class CharacterBudget:
    """Bounds how many characters may be read between braces, in all texts of a workflow together.

    Real prompts have a few kilobytes and two or three levels; each level reads what is inside it again.
    """

    characters: int = 1_000_000

    def spend_characters(self, character_count: int) -> None:
        """Take characters from the budget. Raises `TooMuchText` if none are left."""
        self.characters -= character_count
        if self.characters < 0:
            raise TooMuchText


@dataclass(slots=True)
# An explicit stack instead of recursion: a hostile text may nest more braces than Python has frames.
class _Level:
    text: str
    at: int = 0
    done: list[str] = field(default_factory=list)


def expand_dynamic_prompt(prompt_text: str, choose: Choose, character_budget: CharacterBudget) -> str:
    """Strip comments and make the choices of a text. Raises `TooMuchText` if it is nested too deeply."""
    open_levels = [_Level(remove_comments(prompt_text))]
    while True:
        current_level = open_levels[-1]
        brace_position = _next_special(current_level)
        if brace_position is None:
            finished = _ESCAPED.sub(r"\1", "".join(current_level.done))
            open_levels.pop()
            if not open_levels:
                return finished
            open_levels[-1].done.append(finished)
            continue
        options, current_level.at = _split_options(current_level.text, brace_position + 1)
        # Each level reads its inside again, so nesting costs the square of the length: the budget bounds it.
        character_budget.spend_characters(current_level.at - brace_position)
        # The chosen option may hold choices of its own, and comments that a choice put together.
        open_levels.append(_Level(remove_comments(choose(options))))


def remove_comments(prompt_text: str) -> str:
    """Strip `/* ... */`, and `// ...` up to the end of the line. An unclosed comment is plain text."""
    kept_parts: list[str] = []
    position = 0
    may_close = True
    while (slash_position := prompt_text.find("/", position)) >= 0:
        next_character = prompt_text[slash_position + 1 : slash_position + 2]
        if next_character == "/":
            kept_parts.append(prompt_text[position:slash_position])
            line_end = _LINE_ENDS.search(prompt_text, slash_position)
            position = line_end.start() if line_end else len(prompt_text)
            continue
        # Once a search for `*/` has failed there is none further on either: do not search the rest again.
        comment_end = prompt_text.find("*/", slash_position + 2) if next_character == "*" and may_close else -1
        if comment_end >= 0:
            kept_parts.append(prompt_text[position:slash_position])
            position = comment_end + 2
            continue
        may_close = may_close and next_character != "*"
        kept_parts.append(prompt_text[position : slash_position + 1])
        position = slash_position + 1
    return "".join([*kept_parts, prompt_text[position:]])


def _next_special(current_level: _Level) -> int | None:
    """Copy plain text up to the next opening brace and return the brace's position, or None if there is no more."""
    prompt_text = current_level.text
    while current_level.at < len(prompt_text):
        brace_position, escape_position = (
            prompt_text.find("{", current_level.at),
            prompt_text.find("\\", current_level.at),
        )
        if escape_position >= 0 and (brace_position < 0 or escape_position < brace_position):
            # An escaped character is copied as it is; `_ESCAPED` removes the backslash at the end.
            current_level.done.append(prompt_text[current_level.at : escape_position + 2])
            current_level.at = escape_position + 2
            continue
        copy_end = brace_position if brace_position >= 0 else len(prompt_text)
        current_level.done.append(prompt_text[current_level.at : copy_end])
        current_level.at = copy_end
        if brace_position >= 0:
            return brace_position
    return None


def _split_options(prompt_text: str, first_position: int) -> tuple[list[str], int]:
    """Split a block, read after its opening brace, into options; also return the position after it."""
    options: list[str] = []
    depth, option_start, position = 0, first_position, first_position
    while position < len(prompt_text):
        character = prompt_text[position]
        if character == "\\":
            position += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                options.append(prompt_text[option_start:position])
                return options, position + 1
            depth -= 1
        elif character == "|" and depth == 0:
            options.append(prompt_text[option_start:position])
            option_start = position + 1
        position += 1
    # The page accepts a block that is never closed, so we do too.
    options.append(prompt_text[option_start:])
    return options, len(prompt_text)
