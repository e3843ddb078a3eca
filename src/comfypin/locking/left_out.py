"""Matches the names of --leave-out with what is there: normalized, and only whole names (pure)."""

import difflib
from collections.abc import Collection, Iterable

from comfypin.lock.requirements import normalize_package_name
from comfypin.locking.errors import NothingToLeaveOut


def is_left_out(left_out: Collection[str], *names: str) -> bool:
    """Return whether one of these names is left out: `lazr-uri` means `lazr.uri`, but `torch` not `torchvision`."""
    wanted_names = {normalize_package_name(package_name) for package_name in left_out}
    return any(normalize_package_name(package_name) in wanted_names for package_name in names)


def require_known(left_out: Collection[str], known: Iterable[str], *, where: str, flag: str = "--leave-out") -> None:
    """Raise `NothingToLeaveOut` for names that match nothing: a typo would keep what was meant to be left out."""
    by_name = {normalize_package_name(package_name): package_name for package_name in known}
    unknown = sorted(package_name for package_name in left_out if normalize_package_name(package_name) not in by_name)
    if unknown:
        near = [
            by_name[match]
            for package_name in unknown
            for match in difflib.get_close_matches(normalize_package_name(package_name), by_name, n=2)
        ]
        raise NothingToLeaveOut(flag=flag, names=unknown, where=where, near=list(dict.fromkeys(near)))
