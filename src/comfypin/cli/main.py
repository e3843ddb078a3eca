"""The command `comfypin`: imports the module of the noun, and turns failures into one sentence and an exit code."""

import argparse
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from comfypin import __version__
from comfypin.cli.common import abandon_stdout, report_failure
from comfypin.cli.stopping import Stopped, heeding_signals
from comfypin.errors import Cancelled, ComfypinError, OutputError, UsageError, declare

# Each noun is a module of this package with `configure(parser)` and `execute(arguments) -> int`;
# `arguments.settings` is what the environment says. Only the one that is called is imported, so that --help stays
# fast (bench/overhead).
_GROUPS = {
    "run workflows": {
        "run": "run a workflow on a release or on your own ComfyUI, and deliver its outputs",
        "demo": "run the built-in demo, from the package's own data",
        "workflow": "convert and check workflows, and list their inputs",
        "submit": "send a workflow to a server elsewhere, follow it, and save its outputs",
        "jobs": "list, show, watch, cancel, retry and download the jobs of a server elsewhere",
    },
    "pin and install releases": {
        "init": "make a lock of your own ComfyUI, and say what to type next",
        "lock": "make, check, compare and export locks",
        "realize": "make this machine match a lock: ComfyUI, nodes, packages and models",
        "env": "check, pack and clean up realized environments",
        "models": "pull, verify, list, stage and collect models",
    },
    "serve and ship": {
        "serve": "serve jobs over HTTP, as Runpod's endpoints do, on this machine",
        "worker": "serve the jobs of a Runpod Serverless endpoint, or of a fleet",
        "fleet": "look after a fleet: its workers, its backlog, jobs that were given up",
        "sync": "sync a folder to a bucket without losing a file",
        "image": "build a release's container image, and push it",
        "runpod": "make Runpod endpoints: up, plan, apply, destroy templates, endpoints, pods and volumes",
    },
    "find out": {
        "doctor": "check what this machine has and lacks",
        "explain": "explain a failure by its name or exit code",
        "help": "show the help of a command, or a page of the documentation",
        "completion": "print what completes these commands in bash, zsh or fish",
    },
}
NOUNS = {noun: summary for group in _GROUPS.values() for noun, summary in group.items()}
_EXAMPLES = (
    ("comfypin demo", "a picture, with nothing else installed"),
    ("comfypin run --comfy-home ~/ComfyUI --workflow W.json --output file", "your own ComfyUI"),
    ("comfypin init ~/ComfyUI", "pin it in a lock"),
    ("comfypin run --lock NAME --workflow W.json --output s3", "the same anywhere, into a bucket"),
    ("comfypin serve --lock NAME", "an HTTP API and a page for it"),
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def find_near(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one is nearest to, if any is near."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)), None)


class CommandParser(argparse.ArgumentParser):
    """Raises `UsageError` (one sentence, exit code 64) for mistakes, and expands no abbreviated flags."""

    def __init__(self, **options: object) -> None:
        # An abbreviation in a script breaks when another flag begins alike.
        super().__init__(**{"allow_abbrev": False, **options})  # type: ignore[arg-type]

    def parse_known_args(  # type: ignore[override]  # argparse's overloads only say which namespace comes back
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words; a misspelt flag is named first, since argparse would ask for the required ones instead."""
        for word in args or ():
            if word == "--":
                break
            flag = word.partition("=")[0]
            # The flags after a verb are for the verb's own parser.
            if word in (self._verbs or ()):
                break
            if not flag.startswith("--") or flag in self._option_string_actions:
                continue
            if near := find_near(flag, self._option_string_actions):
                raise UsageError(f"There is no flag {flag}; did you mean {near}? See {self.prog} --help.")
        return super().parse_known_args(args, namespace)

    @property
    def _verbs(self) -> Iterable[str] | None:
        return next(
            (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)), None
        )

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse a value that is not among the choices, with the nearest of them."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = find_near(str(value), choices)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}; {hint}")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


@declare
class StdoutUnusable(OutputError):
    """Raised if stdout takes no more, because its disk is full."""

    template = "The result could not be printed on stdout: {reason}; free space on the disk that stdout goes to."
    reason: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the entry point of `comfypin` and of every door."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    _open_missing_streams()
    try:
        with heeding_signals():
            exit_code = _run_command(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        failure = stopped.failure if isinstance(stopped, Stopped) else Cancelled("Stopped.")
        report_failure(failure, arguments)
        return failure.exit_code
    except ComfypinError as error:
        report_failure(error, arguments)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user unasked
        return _handle_unexpected(error, arguments)
    return exit_code


def _handle_unexpected(error: Exception, arguments: Sequence[str]) -> int:
    """Report an exception that is not ours, and return the exit code; raise it again if --verbose asks for it."""
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        # The reader (`| head`) has what it wanted; Python must not complain again when it closes stdout.
        abandon_stdout()
        return 0
    if isinstance(error, OSError) and error.errno in _DISK_FULL and error.filename is None:
        # The adapters name their own files; without a name it is `> file` that could not take more.
        abandon_stdout()
        report_failure(StdoutUnusable(reason=os.strerror(error.errno).lower()), arguments)
        return StdoutUnusable.exit_code
    import traceback

    from comfypin.machine_errors import machine_failure

    lacking = machine_failure(error, os.environ)
    if "--verbose" in arguments:
        if lacking is None:
            raise error
        traceback.print_exc()
    if lacking is None:
        sentence = f"internal error: {type(error).__name__}: {error}; run again with --verbose for the traceback."
        print(f"comfypin: {sentence}", file=sys.stderr)
        return 1
    report_failure(lacking, arguments)
    return lacking.exit_code


def _run_command(arguments: list[str]) -> int:
    parser = CommandParser(
        prog="comfypin",
        description=_describe_commands(),
        epilog=_show_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"comfypin {__version__}")
    parser.add_argument("noun", nargs="?", metavar="COMMAND", help="one of the commands above")
    try:
        # Only the first word: the rest is for the noun's own parser.
        first_word = parser.parse_args(arguments[:1])
        if first_word.noun is None:
            parser.print_help()
            return 0
        if first_word.noun not in NOUNS:
            near = find_near(first_word.noun, NOUNS)
            hint = f"did you mean {near}? See comfypin --help" if near else f"there are {', '.join(NOUNS)}"
            raise UsageError(f"There is no command {first_word.noun!r}; {hint}.")
        noun_arguments = make_command_parser(first_word.noun).parse_args(arguments[1:])
    except SystemExit as parser_exit:
        # --help and --version were printed.
        return int(parser_exit.code or 0)
    from comfypin.settings.environment import Settings

    # Nothing below the command line looks at the environment again: it is handed on, parsed.
    noun_arguments.settings = Settings(os.environ)
    return int(importlib.import_module(f"comfypin.cli.{first_word.noun}").execute(noun_arguments))


def make_command_parser(noun: str) -> CommandParser:
    """Import a command, and return the parser of its words."""
    module = importlib.import_module(f"comfypin.cli.{noun}")
    parser = CommandParser(
        prog=f"comfypin {noun}",
        description=module.__doc__,
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return parser


def _describe_commands() -> str:
    width = max(map(len, NOUNS))
    lines = ["Pin a ComfyUI release, run workflows headless, deliver every output."]
    for title, nouns in _GROUPS.items():
        lines += ["", f"{title}:", *(f"  {noun:<{width}}  {summary}" for noun, summary in nouns.items())]
    return "\n".join(lines)


def _show_examples() -> str:
    width = max(len(command) for command, _ in _EXAMPLES)
    lines = "\n".join(f"  {command:<{width}}  {purpose}" for command, purpose in _EXAMPLES)
    return f"examples:\n{lines}\n\ncomfypin COMMAND --help says more; so does comfypin help."


def _open_missing_streams() -> None:
    """Open /dev/null for streams that were closed when the process started (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Notes(sys.stderr.buffer, encoding=sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        # A C locale must not turn a picture's name into a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Notes(io.TextIOWrapper):
    """Stderr, whose reader may go and whose disk may be full: what happens to a note changes nothing of the result."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _reader_is_gone() -> bool:
    """Return whether stdout is a pipe that nobody reads any more; a broken socket elsewhere is another failure."""
    import select

    poller = select.poll()
    poller.register(1, select.POLLOUT)
    return any(events & select.POLLERR for _, events in poller.poll(0))


if __name__ == "__main__":
    sys.exit(main())
