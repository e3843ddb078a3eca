"""Print what completes comfypin's commands, verbs, flags and their values in a shell.

comfypin completion bash > ~/.local/share/bash-completion/completions/comfypin
comfypin completion zsh > ~/.zfunc/_comfypin        with fpath+=~/.zfunc before compinit in ~/.zshrc
comfypin completion fish > ~/.config/fish/completions/comfypin.fish
"""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from comfypin.cli.command_parsers import walk_parsers
from comfypin.cli.main import NOUNS

_SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag, what it is for, the words that it takes (none: anything, such as a file), and whether it takes any."""

    names: tuple[str, ...]
    summary: str
    choices: tuple[str, ...] = ()
    takes_value: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandWords:
    """A command or verb by its path (`lock show`): its verbs with their summaries, and its flags."""

    path: str
    verbs: dict[str, str]
    flags: tuple[Flag, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `completion`."""
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def execute(arguments: argparse.Namespace) -> int:
    """Print the script."""
    commands = list(read_commands())
    script = {"bash": _bash_lines, "zsh": _zsh_lines, "fish": _fish_lines}[arguments.shell](commands)
    print("\n".join(script))
    return 0


def read_commands() -> Iterator[CommandWords]:
    """Yield every command and verb, as their parsers declare them."""
    yield CommandWords(path="", verbs=dict(NOUNS), flags=(Flag(names=("--version",), summary="print the version"),))
    for path, parser in walk_parsers():
        yield _read_parser(path, parser)


def _read_parser(path: str, parser: argparse.ArgumentParser) -> CommandWords:
    verbs: dict[str, str] = {}
    flags: list[Flag] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            verbs |= {verb_name: _plain(summaries.get(verb_name, "")) for verb_name in action.choices}
        elif action.option_strings:
            flags.append(
                Flag(
                    names=tuple(action.option_strings),
                    summary=_plain(action.help or ""),
                    choices=tuple(map(str, action.choices or ())),
                    takes_value=action.nargs != 0,
                )
            )
        elif action.choices:
            verbs |= dict.fromkeys(map(str, action.choices), "")
    return CommandWords(path=path, verbs=verbs, flags=tuple(flags))


def _plain(summary: str) -> str:
    """Return a summary on one line without what a shell would read; argparse's own fields are left out."""
    return " ".join(summary.replace("%(default)s", "the default").split()).translate(str.maketrans("", "", "'\"`$\\"))


def _bash_lines(commands: list[CommandWords]) -> Iterator[str]:
    yield "# bash completion of comfypin; made by: comfypin completion bash"
    yield "_comfypin() {"
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" path="" word'
    # The verbs so far tell where we are; flags and values lie between them.
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield '        case " $(_comfypin_verbs "$path") " in *" $word "*) path="${path:+$path }$word" ;; esac'
    yield "    done"
    yield '    case "$path:$previous" in'
    for command in commands:
        for flag in command.flags:
            if flag.takes_value:
                patterns = "|".join(shlex.quote(f"{command.path}:{flag_name}") for flag_name in flag.names)
                choices = " ".join(flag.choices)
                completions = f'$(compgen -W "{choices}" -- "$current")' if choices else '$(compgen -f -- "$current")'
                yield f"        {patterns}) COMPREPLY=({completions}); return ;;"
    yield "    esac"
    yield '    if [[ "$current" == -* ]]; then'
    yield '        COMPREPLY=($(compgen -W "$(_comfypin_flags "$path")" -- "$current"))'
    yield "    else"
    yield '        COMPREPLY=($(compgen -W "$(_comfypin_verbs "$path")" -- "$current"))'
    yield '        [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$current"))'
    yield "    fi"
    yield "}"
    for function, words in (
        ("_comfypin_verbs", lambda command: command.verbs),
        ("_comfypin_flags", lambda command: [flag_name for flag in command.flags for flag_name in flag.names]),
    ):
        yield f"{function}() {{"
        yield '    case "$1" in'
        for command in commands:
            yield f"        {shlex.quote(command.path)}) echo {shlex.quote(' '.join(words(command)))} ;;"
        yield "    esac"
        yield "}"
    yield "complete -o filenames -F _comfypin comfypin"


def _zsh_lines(commands: list[CommandWords]) -> Iterator[str]:
    yield "#compdef comfypin"
    yield "# zsh completion of comfypin; made by: comfypin completion zsh"
    yield "_comfypin() {"
    yield "    local path_so_far='' word"
    yield "    local -a verbs flags"
    yield "    for word in ${words[2,CURRENT-1]}; do"
    yield '        case "$path_so_far $word" in'
    for command in commands:
        if command.path:
            parent, _, last_word = command.path.rpartition(" ")
            yield f"            {shlex.quote(f'{parent} {last_word}')}) path_so_far={shlex.quote(command.path)} ;;"
    yield "        esac"
    yield "    done"
    yield '    case "$path_so_far:${words[CURRENT-1]}" in'
    for command in commands:
        for flag in command.flags:
            if flag.takes_value:
                patterns = "|".join(shlex.quote(f"{command.path}:{flag_name}") for flag_name in flag.names)
                complete = f"compadd -- {' '.join(map(shlex.quote, flag.choices))}" if flag.choices else "_files"
                yield f"        {patterns}) {complete}; return ;;"
    yield "    esac"
    yield '    case "$path_so_far" in'
    for command in commands:
        verbs = " ".join(shlex.quote(f"{verb_name}:{summary}") for verb_name, summary in command.verbs.items())
        flags = " ".join(
            shlex.quote(f"{flag_name}:{flag.summary}") for flag in command.flags for flag_name in flag.names
        )
        yield f"        {shlex.quote(command.path)}) verbs=({verbs}); flags=({flags}) ;;"
    yield "    esac"
    yield '    if [[ "$PREFIX" == -* ]]; then'
    yield "        _describe 'flag' flags"
    yield "    elif (( $#verbs )); then"
    yield "        _describe 'command' verbs"
    yield "    else"
    yield "        _files"
    yield "    fi"
    yield "}"
    # As an autoloaded function it is called at once; sourced, it is only declared.
    yield 'if [ "$funcstack[1]" = "_comfypin" ]; then _comfypin "$@"; else compdef _comfypin comfypin; fi'


def _fish_lines(commands: list[CommandWords]) -> Iterator[str]:
    yield "# fish completion of comfypin; made by: comfypin completion fish"
    yield "function __comfypin_path"
    yield "    set -l path_so_far ''"
    yield "    for word in (commandline -opc)[2..]"
    yield '        switch "$path_so_far $word"'
    for command in commands:
        if command.path:
            parent, _, last_word = command.path.rpartition(" ")
            yield f"            case {_quote_fish(f'{parent} {last_word}')}"
            yield f"                set path_so_far {_quote_fish(command.path)}"
    yield "        end"
    yield "    end"
    yield '    test "$path_so_far" = "$argv[1]"'
    yield "end"
    for command in commands:
        here = f"complete -c comfypin -n {_quote_fish(f'__comfypin_path {_quote_fish(command.path)}')}"
        for verb_name, summary in command.verbs.items():
            yield f"{here} -f -a {_quote_fish(verb_name)} -d {_quote_fish(summary)}"
        for flag in command.flags:
            names = " ".join(
                f"-l {flag_name[2:]}" if flag_name.startswith("--") else f"-s {flag_name[1:]}"
                for flag_name in flag.names
            )
            values = f" -x -a {_quote_fish(' '.join(flag.choices))}" if flag.choices else " -r" * flag.takes_value
            yield f"{here} {names}{values} -d {_quote_fish(flag.summary)}"


def _quote_fish(raw_text: str) -> str:
    return "'" + raw_text.replace("\\", "\\\\").replace("'", "\\'") + "'"
