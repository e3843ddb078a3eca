"""Splits a Dockerfile into instructions, and their shell text into commands (pure).

https://docs.docker.com/reference/dockerfile/ says how lines continue, what here-documents are and where variables hold.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)\s*$", re.I)
_HEREDOC = re.compile(r"<<(?P<dash>-?)(?P<quote>[\"']?)(?P<word>[A-Za-z_]\w*)(?P=quote)")
_VARIABLE = re.compile(
    r"\\\$|\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::?(?P<operator>[-+])(?P<word>[^{}]*))?\})"
)
# An image, and perhaps its platform and the name of the stage: not a sentence that begins with "from".
_FROM = re.compile(r"(?:--\S+\s+)*[^\s:=]\S*(?:\s+AS\s+\S+)?", re.I)
_SEPARATORS = ";&|()\n"
_LINE_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.M)
# What these begin is run on a condition, or several times: nobody but a shell knows what it does.
_BLOCK_ENDS = {"if": "fi", "for": "done", "while": "done", "until": "done", "case": "esac"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: its keyword in capitals, its value on one line, the files written in it, and where it stands."""

    keyword: str
    value: str
    heredocs: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellCommand:
    """One command of a shell text, and whether it is part of a pipe, or of a block such as `if`."""

    words: tuple[str, ...]
    is_piped: bool = False
    in_block: bool = False


def is_dockerfile(text: str) -> bool:
    """Return whether a text's first instruction is FROM; ARG may stand before it."""
    for instruction in read_instructions(text[:8192]):
        if instruction.keyword != "ARG":
            return instruction.keyword == "FROM" and _FROM.fullmatch(instruction.value) is not None
    return False


def read_instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions, with continued lines joined and here-documents taken off."""
    lines = text.splitlines()
    escape = next((match[1] for line in lines[:5] if (match := _ESCAPE.match(line))), "\\")
    index = 0
    while index < len(lines):
        first_line, pieces = index, list[str]()
        while index < len(lines):
            line = lines[index].rstrip()
            index += 1
            # Comments and empty lines stand between continued lines, too.
            if line.lstrip().startswith("#") or not line.strip():
                if not pieces:
                    first_line = index
                continue
            pieces.append(line.removesuffix(escape))
            if not line.endswith(escape):
                break
        keyword, _, value = " ".join(pieces).strip().partition(" ")
        heredocs: list[str] = []
        # A shell's own here-document stands there too, and is read the same.
        for match in _HEREDOC.finditer(value) if keyword.upper() in ("RUN", "COPY", "ADD") else ():
            body: list[str] = []
            while index < len(lines) and lines[index].strip() != match["word"]:
                body.append(lines[index])
                index += 1
            index += 1
            heredocs.append("\n".join(body))
        if keyword:
            yield Instruction(
                keyword=keyword.upper(), value=value.strip(), heredocs=tuple(heredocs), line=first_line + 1
            )


def strip_heredocs(value: str) -> str:
    """Return an instruction's value without the marks of its here-documents."""
    return _HEREDOC.sub("", value).strip()


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with `$X`, `${X}`, `${X:-word}` and `${X:+word}` replaced; an unknown variable stays as it is."""

    def replace_one(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        if name is None:
            return match[0]
        value = variables.get(name)
        if match["operator"] == "-":
            return value or match["word"]
        if match["operator"] == "+":
            return match["word"] if value else ""
        return match[0] if value is None else value

    return _VARIABLE.sub(replace_one, text)


def read_assignments(value: str) -> dict[str, str]:
    """Return the variables of an ENV or ARG: `A=1 B="2 3"`, or the old `A 1`. Raises `ValueError`."""
    words = shlex.split(value, comments=False)
    if words and "=" not in words[0]:
        name, _, rest = value.partition(" ")
        return {name: rest.strip()} if rest else {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def split_commands(script: str) -> Iterator[ShellCommand]:
    """Yield the commands of a shell text, in order. Raises `ValueError` if a quote is not closed."""
    # A backslash joins lines here, too, and a comment may hold half a quote.
    script = _LINE_COMMENT.sub("", re.sub(r"\\\n", " ", script))
    lexer = shlex.shlex(script, posix=True, punctuation_chars=_SEPARATORS + "<>")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    was_piped, block_ends = False, list[str]()
    tokens = iter(lexer)
    for token in tokens:
        if set(token) <= set("<>&") and ("<" in token or ">" in token):
            # A redirection: `2>&1` comes as "2", ">&", "1".
            if words and words[-1] in ("1", "2"):
                words.pop()
            next(tokens, None)
        elif token and set(token) <= set(_SEPARATORS):
            is_pipe = "|" in token.replace("||", "")
            yield from _finish(words, block_ends, is_piped=was_piped or is_pipe)
            words, was_piped = [], is_pipe
        else:
            words.append(token)
    yield from _finish(words, block_ends, is_piped=was_piped)


def _finish(words: list[str], block_ends: list[str], *, is_piped: bool) -> Iterator[ShellCommand]:
    if not words:
        return
    if end := _BLOCK_ENDS.get(words[0]):
        block_ends.append(end)
    yield ShellCommand(words=tuple(words), is_piped=is_piped, in_block=bool(block_ends))
    if block_ends and words[0] == block_ends[-1]:
        block_ends.pop()
