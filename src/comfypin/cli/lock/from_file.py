"""Reads the file of another tool that `lock create --from` and `lock capture --from` name."""

import argparse
from typing import TYPE_CHECKING

from comfypin.cli.common import report_progress
from comfypin.cli.lock.common import make_lock_places, read_question

if TYPE_CHECKING:
    from comfypin.locking.from_file import ChosenParts
    from comfypin.locking.release_files.document import ReleaseFile
    from comfypin.locking.resolve import ResolveRequest
    from comfypin.locking.sources import Upstreams


def read_file_parts(arguments: argparse.Namespace) -> "tuple[ChosenParts, Upstreams]":
    """Read the file, choose of it what the flags say, and report its notes. Raises what `choose_parts` raises."""
    from comfypin.locking.from_file import FileChoices, choose_parts
    from comfypin.locking.release_files.registry import read_release_file
    from comfypin.locking.repository_refs import parse_comfyui_spec

    release = read_release_file(arguments.origin)
    report_progress(f"reading {arguments.origin}, {release.kind}")
    # What follows asks the network and may fail; what the file says that no lock can hold is known now.
    for note in release.notes:
        report_progress(note)
    choices = FileChoices(
        path=str(arguments.origin),
        comfyui=parse_comfyui_spec(arguments.comfyui) if arguments.comfyui else None,
        left_out=frozenset(arguments.leave_out),
        only=frozenset(arguments.only),
        with_models=not arguments.no_models,
    )
    lock_places = make_lock_places(arguments)
    parts = choose_parts(release, choices, lock_places)
    for note in parts.release.notes[len(release.notes) :]:
        report_progress(note)
    return parts, lock_places


def file_question(arguments: argparse.Namespace, release: "ReleaseFile") -> "ResolveRequest":
    """Return how packages are resolved: for the file's Python and torch, unless a flag names another."""
    from dataclasses import replace

    question = read_question(arguments)
    return replace(
        question,
        python=question.python if arguments.python else release.python or question.python,
        torch=question.torch or release.torch,
    )
