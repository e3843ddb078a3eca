"""Find what `comfypin runpod up` still needs from the user besides the lock: together, and before anything is made.

Each finding is a sentence with the flag or the variable that settles it, as a list for `UpUndecided` has them.
"""

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comfypin.cli.runpod.variable_flags import secret_wishes
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.cli.runpod.up_lock import UpLock
    from comfypin.lock.model import Lock
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.up.plan import SecretWish, UpFacts
    from comfypin.runpod.up.state import UpRelease

# In the place of what is not known yet, in a plan that is only shown.
UNKNOWN_IMAGE = "not known yet (--image)"


def is_offline(arguments: argparse.Namespace) -> bool:
    """Return whether nobody may be asked. Raises `UsageError` if anything but a plan is wanted."""
    if arguments.offline and not arguments.dry_run:
        raise UsageError("--offline only plans: add --dry-run, or leave it out.")
    return bool(arguments.offline)


def open_api(arguments: argparse.Namespace) -> "ManagementApi | None":
    """Return Runpod's API, None if it may not be asked or no key is there to ask it with."""
    from comfypin.wiring import open_runpod_api

    if is_offline(arguments) or arguments.settings.runpod.api_key is None:
        return None
    return open_runpod_api(arguments.settings)


def find_account_needs(
    arguments: argparse.Namespace, management_api: "ManagementApi | None", deployment_name: str
) -> list[str]:
    """Return what is missing of the account: the key, and secrets that neither this machine nor Runpod has."""
    from comfypin.runpod.up.platform_secrets import list_secrets

    findings = []
    if arguments.settings.runpod.api_key is None:
        findings.append(
            "the key: RUNPOD_API_KEY is not set; make one in Runpod's console (Settings, API Keys) and export it"
        )
    wishes = secret_wishes(arguments.secret, deployment_name)
    values = arguments.settings.pick_variables([wish.variable for wish in wishes])
    unsettled = [wish for wish in wishes if not (wish.own_value and values.get(wish.variable))]
    known_secrets = list_secrets(management_api) if unsettled and management_api is not None else None
    return [*findings, *(_secret_finding(wish, known_secrets) for wish in unsettled if _is_open(wish, known_secrets))]


def _is_open(wish: "SecretWish", known_secrets: Collection[str] | None) -> bool:
    # Whether Runpod has a secret that was named is its answer alone.
    return wish.own_value if known_secrets is None else wish.secret_name not in known_secrets


def _secret_finding(wish: "SecretWish", known_secrets: Collection[str] | None) -> str:
    if wish.own_value:
        return (
            f"the secret {wish.variable}: --secret {wish.variable} takes the value of {wish.variable} on this machine, "
            f"which is not set; export it, or name a secret that Runpod has: --secret {wish.variable}=NAME"
        )
    candidates = f"; it has {', '.join(sorted(known_secrets))}" if known_secrets else ""
    return (
        f"the secret {wish.variable}: Runpod has no secret {wish.secret_name}{candidates}; choose by --secret "
        f"{wish.variable}=NAME, or --secret {wish.variable} to make one of this machine's {wish.variable}"
    )


def choose_image(arguments: argparse.Namespace, lock: "Lock", findings: list[str]) -> str:
    """Return the worker image by digest; offline its tag. Adds a finding if nobody tells the digest."""
    from comfypin.cli.runpod.worker_image import name_worker_image, resolve_worker_image
    from comfypin.runpod.up.errors import WorkerImageUnknown

    try:
        if arguments.offline:
            return name_worker_image(arguments.image, lock)
        return resolve_worker_image(arguments.image, lock, arguments.settings)
    except WorkerImageUnknown as unknown:
        findings.append(f"the image: {_as_clause(unknown.message)}")
        return UNKNOWN_IMAGE


def find_lock_needs(release: "UpRelease", carried_lock: str) -> list[str]:
    """Return a finding if the lock cannot travel to a machine that does not have it yet."""
    from comfypin.runpod.up.errors import LockTooLarge
    from comfypin.runpod.up.plan import travelling_lock

    try:
        travelling_lock(release, carried_lock)
    except LockTooLarge as too_large:
        return [f"the lock's address: {_as_clause(too_large.message)}"]
    return []


def with_some_address(release: "UpRelease") -> "UpRelease":
    """Return the release with an address of its lock, so that a lock of any size can be planned."""
    return replace(release, lock_url=release.lock_url or "--lock-url URL")


def note_unasked(facts: "UpFacts") -> list[str]:
    """Return the line that tells a plan from one that Runpod was asked for."""
    return [] if facts.live else ["Runpod was not asked: what exists there already, and the cost, are not in this plan"]


def tell_together(make_lock: "Callable[[], UpLock]", findings: Sequence[str], source: str) -> "UpLock":
    """Return the lock. If it cannot be made, tell why together with what else is missing: `UpUndecided`."""
    from comfypin.errors import Cancelled, ComfypinError
    from comfypin.runpod.up.errors import UpUndecided

    try:
        return make_lock()
    except UpUndecided as undecided:
        raise UpUndecided(source=source, findings=[*undecided.findings, *findings]) from undecided
    except (UsageError, Cancelled):
        raise
    except ComfypinError as error:
        if not findings:
            raise
        raise UpUndecided(source=source, findings=[f"the lock: {_as_clause(error.message)}", *findings]) from error


def _as_clause(sentence: str) -> str:
    return sentence.strip().rstrip(".")
