"""Which release has taken the place of another: `comfypin fleet roll` writes it, servers and workers follow it.

A roll begins to hold once a worker has the new release warm: then jobs that name no release by its digest go to the
new one, and workers of the old one leave as soon as nothing waits for them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from comfypin.queue.nats.buckets import Bucket

_KEY = "rolls"
# More steps back than anybody remembers.
_KEPT_STEPS = 20
_MOST_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """One release in the place of another; `is_held` once jobs go to the new one. `at` in seconds since 1970.

    `image` is what pods of the new release run, if it is not the image of the old one's.
    """

    old: str
    old_name: str
    new: str
    new_name: str
    at: float
    is_held: bool = False
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolls:
    """All rolls of a fleet: `current` by the old release, `steps` in the order in which they were made."""

    current: Mapping[str, Roll]
    steps: tuple[Roll, ...] = ()

    def successor(self, release: str) -> str:
        """Return the release that takes the jobs of this one now: itself, unless it was rolled."""
        while (roll := self.current.get(release)) is not None and roll.is_held:
            release = roll.new
        return release

    def wanted(self, release: str) -> str:
        """Return the release that should take the jobs of this one, also if no worker has it warm yet."""
        while (roll := self.current.get(release)) is not None:
            release = roll.new
        return release

    def names(self) -> dict[str, str]:
        """Return the names of all releases that were rolled, by release."""
        rolls = self.current.values()
        return {roll.old: roll.old_name for roll in rolls} | {roll.new: roll.new_name for roll in rolls}

    def with_roll(self, roll: Roll) -> "Rolls":
        """Return the rolls with one more. What led away from the new release is undone: it is the last of its line."""
        # Without what leads away from the new release, so that following rolls never goes round in a circle.
        others = {old: known for old, known in self.current.items() if old not in (roll.old, roll.new)}
        return Rolls(current={**others, roll.old: roll}, steps=(*self.steps, roll)[-_KEPT_STEPS:])

    def without_last(self, *, at: float) -> "Rolls | None":
        """Return the rolls after the last step was taken back, at once; None if there is none."""
        if not self.steps:
            return None
        last = self.steps[-1]
        back = Roll(old=last.new, old_name=last.new_name, new=last.old, new_name=last.old_name, at=at, is_held=True)
        # Its own step is not kept: taking back twice goes back by two releases, not to and fro.
        return replace(self.with_roll(back), steps=self.steps[:-1])

    def held(self, release: str) -> "Rolls":
        """Return the rolls with the one of this old release as one that holds."""
        return replace(self, current={**self.current, release: replace(self.current[release], is_held=True)})


NO_ROLLS = Rolls(current={})


async def read_rolls(bucket: Bucket) -> Rolls:
    """Return the rolls of a fleet. Raises what nats-py raises."""
    stored_entry = await bucket.get(_KEY)
    return NO_ROLLS if stored_entry is None else _load(stored_entry.data)


async def change_rolls(bucket: Bucket, change: Callable[[Rolls], Rolls | None]) -> Rolls | None:
    """Change the rolls as soon as nobody else does; None if `change` returns None. Raises what nats-py raises."""
    for _ in range(_MOST_TRIES):
        stored_entry = await bucket.get(_KEY)
        changed_rolls = change(NO_ROLLS if stored_entry is None else _load(stored_entry.data))
        if changed_rolls is None:
            return None
        if (
            await bucket.change(
                _KEY, _dump(changed_rolls), revision=0 if stored_entry is None else stored_entry.revision
            )
            is not None
        ):
            return changed_rolls
    # As if the queue did not answer: others change the rolls faster than we can.
    raise TimeoutError


def _dump(rolls: Rolls) -> bytes:
    document = {
        "current": [asdict(roll) for roll in rolls.current.values()],
        "steps": [asdict(roll) for roll in rolls.steps],
    }
    return json.dumps(document).encode()


def _load(record_bytes: bytes) -> Rolls:
    document = json.loads(record_bytes)
    current = [Roll(**roll) for roll in document["current"]]
    return Rolls(current={roll.old: roll for roll in current}, steps=tuple(Roll(**roll) for roll in document["steps"]))
