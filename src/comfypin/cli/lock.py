"""Make, check, compare and export locks.

A lock is one JSON file that pins a ComfyUI release: docs/locks.md says what is in it.
"""

import argparse
import json
import sys

from comfypin.cli.lock_make import configure_create
from comfypin.errors import UsageError
from comfypin.lock.codec import Reading, env_digest, lock_digest, read_lock, to_json
from comfypin.lock.find import find_lock
from comfypin.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    show = verbs.add_parser("show", help="print what a lock pins", description="Print what a lock pins.")
    check = verbs.add_parser(
        "check",
        help="say what keeps a lock from being realized",
        description="Say everything that keeps a lock from being realized as it stands (a branch instead of a commit, "
        "no checksum, no package pins). Exit code 10 when there is anything.",
    )
    for verb in (show, check):
        verb.add_argument("--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)")
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.add_argument("--verbose", action="store_true", help="say more about failures")
    show.set_defaults(act=_show)
    check.set_defaults(act=_check)
    configure_create(verbs.add_parser("create", help="make a lock from repositories, requirements and models"))
    schema = verbs.add_parser("schema", help="print the JSON Schema of a lock, schema 3")
    schema.set_defaults(act=_schema)


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with locks; see comfypin lock --help.")
    return int(arguments.act(arguments))


def read_named_lock(wanted: str | None) -> tuple[str, Reading]:
    """The lock that `--lock` or the environment names, and where it lies; warnings go to stderr."""
    settings = Settings.from_environment()
    path = find_lock(wanted, lock_path=settings.lock_path, version_name=settings.version_name)
    return str(path), read_lock(path)


def _show(arguments: argparse.Namespace) -> int:
    from comfypin.lock.show import finding_lines, lines

    where, reading = read_named_lock(arguments.lock)
    if arguments.json:
        _print_json(
            {
                "path": where,
                "read_from_schema": reading.lock.read_from_schema,
                "lock_digest": str(lock_digest(reading.lock)),
                "env_digest": str(env_digest(reading.lock)),
                "lock": to_json(reading.lock),
                "warnings": [finding.to_json() for finding in reading.warnings],
            }
        )
        return 0
    print("\n".join(lines(reading.lock)))
    for line in finding_lines(reading.warnings):
        print(f"comfypin: {line}", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from comfypin.errors import LockError
    from comfypin.lock.check import check
    from comfypin.lock.show import finding_lines

    where, reading = read_named_lock(arguments.lock)
    findings = (*reading.warnings, *check(reading.lock))
    errors = sum(1 for finding in findings if finding.severity == "error")
    if arguments.json:
        _print_json(
            {
                "path": where,
                "release": reading.lock.version_name,
                "ok": errors == 0,
                "lock_digest": str(lock_digest(reading.lock)),
                "findings": [finding.to_json() for finding in findings],
            }
        )
    else:
        for line in finding_lines(findings):
            print(line)
        summary = f"{errors} errors, {len(findings) - errors} warnings" if findings else "complete"
        print(f"{where}: {reading.lock.version_name}: {summary}")
    return LockError.exit_code if errors else 0


def _schema(arguments: argparse.Namespace) -> int:
    from comfypin.lock.schema3 import json_schema

    _print_json(json_schema())
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True))
