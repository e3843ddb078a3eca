"""The command `comfypin`: finds the noun, imports only its module, and turns failures into one sentence and a code."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from comfypin import __version__
from comfypin.errors import ComfypinError, UsageError

# Each noun is a module of this package with `configure(parser)` and `execute(arguments) -> int`; only the one that is
# called is imported, so that --help stays fast (bench/overhead).
NOUNS = {
    "run": "run a workflow on a release, and deliver its outputs",
    "demo": "run the built-in demo, from the package's own data",
    "lock": "make, check, compare and export locks",
    "doctor": "say what this machine has and lacks",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UsageErrors: one sentence, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the entry point of `comfypin` and of every door."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; Python must not complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except ComfypinError as error:
        report(error, arguments)
        return error.exit_code
    except Exception as error:  # the last line of defence: no traceback reaches a user unasked
        if "--verbose" in arguments:
            raise
        print(
            f"comfypin: internal error: {type(error).__name__}: {error}; run again with --verbose for the traceback.",
            file=sys.stderr,
        )
        return 1
    return code


def report(error: ComfypinError, arguments: Sequence[str]) -> None:
    """Print a failure: one sentence on stderr, and with --json an object on stdout."""
    if "--json" in arguments:
        print(json.dumps({"error": error.to_json()}, default=str))
    print(f"comfypin: {error.message}", file=sys.stderr)
    if "--verbose" in arguments and error.__cause__ is not None:
        print(f"  because of {type(error.__cause__).__name__}: {error.__cause__}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    parser = Parser(prog="comfypin", description=_description(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"comfypin {__version__}")
    parser.add_argument("noun", nargs="?", metavar="COMMAND", help="one of the commands above")
    head = parser.parse_args(arguments[:1])
    if head.noun is None:
        parser.print_help()
        return 0
    if head.noun not in NOUNS:
        raise UsageError(f"There is no command {head.noun!r}; there are {', '.join(NOUNS)}.")
    module = importlib.import_module(f"comfypin.cli.{head.noun}")
    noun_parser = Parser(
        prog=f"comfypin {head.noun}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(noun_parser)
    return int(module.execute(noun_parser.parse_args(arguments[1:])))


def _description() -> str:
    width = max(map(len, NOUNS))
    lines = "\n".join(f"  {noun:<{width}}  {summary}" for noun, summary in NOUNS.items())
    return f"Pin a ComfyUI release, run workflows headless, deliver every output.\n\ncommands:\n{lines}"


if __name__ == "__main__":
    sys.exit(main())
