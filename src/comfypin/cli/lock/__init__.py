"""Make, check, compare and export locks.

A lock is one JSON file that pins a ComfyUI release: docs/locks.md says what is in it.
"""

import argparse
import json
import sys
from pathlib import Path

from comfypin.cli.common import read_named_lock, report_progress
from comfypin.cli.lock import bisect, capture, create, reproduce, upgrade
from comfypin.cli.lock.common import make_lock_places
from comfypin.errors import UsageError
from comfypin.lock.codec import env_digest, lock_digest, lock_to_json
from comfypin.plurals import format_count, format_size

_CHECK = """List everything that keeps a lock from being realized: a branch instead of a commit, a missing
checksum, missing package pins. Exit code 10 if there is any error."""
_EXPORT = """Print a lock in another tool's format: a requirements file with hashes (pip, uv), a pylock.toml (PEP 751),
a CycloneDX bill of materials of ComfyUI, nodes, packages, models and system packages, or a comfy-build.yaml for
comfy-cli (what it cannot hold is said)."""
_VENDOR = """Gather everything that a lock needs, except its models, in one folder: wheels, git bundles with
submodules, and archives of nodes. `comfypin realize --offline --vendor DIR` needs nothing else, even if
the upstreams disappear."""
_DIFF = "List the differences between two locks, pin by pin: + added, - removed, ~ changed."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    making_verbs = {
        "create": ("make a lock from repositories, requirements and models", create.configure_create),
        "capture": ("make a lock from an installed ComfyUI, or a snapshot", capture.configure_capture),
        "from-workflow": ("list what workflows need, and make a lock of it", capture.configure_from_workflow),
        "upgrade": ("make a lock from another one, moving only what is named", upgrade.configure_upgrade),
        "migrate": ("write a lock of schema 1 or 2 as schema 3", upgrade.configure_migrate),
    }
    for verb_name, (summary, configure_verb) in making_verbs.items():
        configure_verb(verbs.add_parser(verb_name, help=summary))
    _add_reading_verbs(verbs)
    reproduce_parser = verbs.add_parser(
        "reproduce", help="run a workflow twice, each on a new env, and compare the pictures"
    )
    reproduce.configure_reproduce(reproduce_parser)
    bisect.configure_bisect(verbs.add_parser("bisect", help="find the pin that changed a picture"))
    schema_parser = verbs.add_parser("schema", help="print the JSON Schema of a lock, schema 3")
    schema_parser.set_defaults(act=_print_schema)


def _add_reading_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs that only read locks."""
    show_parser = verbs.add_parser("show", help="print what a lock pins", description="Print what a lock pins.")
    show_parser.set_defaults(act=_show_lock)
    check_parser = verbs.add_parser("check", help="list what keeps a lock from being realized", description=_CHECK)
    check_parser.set_defaults(act=_check_lock)
    export_parser = verbs.add_parser("export", help="print a lock in another tool's format", description=_EXPORT)
    export_parser.add_argument(
        "--format", required=True, choices=("requirements", "pylock", "cyclonedx", "comfy-build"), help="the format"
    )
    export_parser.add_argument(
        "--target", metavar="T", help="the target whose packages are printed, if the lock has several"
    )
    export_parser.add_argument("--out", metavar="FILE", type=Path, help="write a file instead of stdout")
    export_parser.set_defaults(act=_export_lock)
    vendor_parser = verbs.add_parser("vendor", help="gather all that a lock needs in a folder", description=_VENDOR)
    vendor_parser.add_argument("folder", metavar="DIR", type=Path, help="the folder; what it has already is kept")
    vendor_parser.set_defaults(act=_vendor_lock)
    for verb_parser in (show_parser, check_parser, export_parser):
        # As `realize` and `runpod` name it; `vendor` already has a folder there.
        verb_parser.add_argument("named_lock", nargs="?", metavar="LOCK", help="the lock, instead of --lock")
    for verb_parser in (show_parser, check_parser, export_parser, vendor_parser):
        verb_parser.add_argument(
            "--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)"
        )
    diff_parser = verbs.add_parser("diff", help="list the differences between two locks", description=_DIFF)
    diff_parser.add_argument("before", metavar="A", help="a lock file, or a release's name")
    diff_parser.add_argument("after", metavar="B", help="the lock to compare with")
    diff_parser.add_argument("--exit-code", action="store_true", help="exit with 1 if they differ")
    diff_parser.set_defaults(act=_compare_locks)
    for verb_parser in (show_parser, check_parser, export_parser, vendor_parser, diff_parser):
        verb_parser.add_argument("--json", action="store_true", help="print JSON")
        verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("comfypin lock needs a verb, such as create, show or check; see comfypin lock --help.")
    if (named_lock := getattr(arguments, "named_lock", None)) is not None:
        if arguments.lock is not None:
            raise UsageError("The lock is named twice, as LOCK and with --lock; drop one of them.")
        arguments.lock = named_lock
    return int(arguments.act(arguments))


def _show_lock(arguments: argparse.Namespace) -> int:
    from comfypin.lock.show import describe_lock, finding_lines

    lock_path, reading = read_named_lock(arguments.lock, arguments.settings)
    if arguments.json:
        _print_json(
            {
                "path": lock_path,
                "read_from_schema": reading.lock.read_from_schema,
                "lock_digest": str(lock_digest(reading.lock)),
                "env_digest": str(env_digest(reading.lock)),
                "lock": lock_to_json(reading.lock),
                "warnings": [finding.to_json() for finding in reading.warnings],
            }
        )
        return 0
    print("\n".join(describe_lock(reading.lock)))
    for line in finding_lines(reading.warnings):
        print(f"comfypin: {line}", file=sys.stderr)
    return 0


def _check_lock(arguments: argparse.Namespace) -> int:
    from comfypin.errors import LockError
    from comfypin.lock.check import check_lock
    from comfypin.lock.show import finding_lines

    lock_path, reading = read_named_lock(arguments.lock, arguments.settings)
    findings = (*reading.warnings, *check_lock(reading.lock))
    error_count = sum(1 for finding in findings if finding.severity == "error")
    if arguments.json:
        _print_json(
            {
                "path": lock_path,
                "release": reading.lock.version_name,
                "ok": error_count == 0,
                "lock_digest": str(lock_digest(reading.lock)),
                "findings": [finding.to_json() for finding in findings],
            }
        )
    else:
        for line in finding_lines(findings):
            print(line)
        warning_count = len(findings) - error_count
        counts = f"{format_count(error_count, 'error')}, {format_count(warning_count, 'warning')}"
        summary = counts if findings else "complete"
        print(f"{lock_path}: {reading.lock.version_name}: {summary}")
    # Warnings alone leave the lock usable.
    return LockError.exit_code if error_count else 0


def _compare_locks(arguments: argparse.Namespace) -> int:
    from comfypin.lock.diff import change_lines, diff_locks

    (_, before), (_, after) = (
        read_named_lock(arguments.before, arguments.settings),
        read_named_lock(arguments.after, arguments.settings),
    )
    changes = diff_locks(before.lock, after.lock)
    if arguments.json:
        _print_json(
            {
                "before": {"release": before.lock.version_name, "lock_digest": str(lock_digest(before.lock))},
                "after": {"release": after.lock.version_name, "lock_digest": str(lock_digest(after.lock))},
                "same_env": env_digest(before.lock) == env_digest(after.lock),
                "changes": [change.to_json() for change in changes],
            }
        )
    elif changes:
        print("\n".join(change_lines(changes)))
    else:
        print("The locks pin the same.", file=sys.stderr)
    # As `git diff --exit-code`.
    return 1 if changes and arguments.exit_code else 0


def _export_lock(arguments: argparse.Namespace) -> int:
    from comfypin.atomic_files import write_atomically
    from comfypin.lock.export import export_lock

    _, reading = read_named_lock(arguments.lock, arguments.settings)
    exported_text = export_lock(reading.lock, arguments.format, arguments.target)
    if arguments.format == "comfy-build":
        from comfypin.lock.comfy_build import write_comfy_build

        for line in write_comfy_build(reading.lock, reading.lock.python.packages).left_out:
            report_progress(f"not in a comfy-build.yaml: {line}")
    if arguments.out is None:
        sys.stdout.write(exported_text)
        return 0
    write_atomically(arguments.out, exported_text.encode())
    if arguments.json:
        _print_json({"path": str(arguments.out), "format": arguments.format})
    else:
        print(arguments.out)
    return 0


def _vendor_lock(arguments: argparse.Namespace) -> int:
    from comfypin.locking.vendor import vendor_lock
    from comfypin.tools.vendor_folder import VendorFolder

    _, reading = read_named_lock(arguments.lock, arguments.settings)
    vendor_folder = VendorFolder(root=arguments.folder.absolute())
    gathered = vendor_lock(reading.lock, vendor_folder, upstreams=make_lock_places(arguments), report=report_progress)
    if arguments.json:
        facts = {"files": list(gathered.files), "fetched": gathered.fetched, "size_bytes": gathered.size_bytes}
        _print_json({"folder": str(vendor_folder.root), **facts})
    else:
        size = format_size(gathered.size_bytes)
        print(
            f"{vendor_folder.root}: {format_count(len(gathered.files), 'file')}, {size}, {gathered.fetched} of them new"
        )
    return 0


def _print_schema(arguments: argparse.Namespace) -> int:
    from comfypin.lock.schema3 import lock_json_schema

    _print_json(lock_json_schema())
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True))
