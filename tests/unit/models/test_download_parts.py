"""Whose turn it is to hash a file's next bytes."""

from concurrent.futures import ThreadPoolExecutor

from comfypin.models.download_parts import HASH_STEP_BYTES, Parts

LENGTH = 4 * HASH_STEP_BYTES


def test_a_hash_is_lent_to_whoever_has_the_bytes_that_it_waits_for() -> None:
    parts = Parts()
    first, second = parts.add(0, LENGTH), parts.add(LENGTH, LENGTH)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.arrived, first, wait_s=60)
        while not parts.lend_hash(first):
            pass
        assert not parts.lend_hash(second)
        parts.wrote(first, LENGTH, hashed=True)
        assert waiting.result()
    assert first.hashed == first.written == LENGTH


def test_a_hash_that_nobody_waits_with_is_not_lent() -> None:
    assert not Parts().lend_hash(Parts().add(0, LENGTH))


def test_a_hash_that_is_behind_is_not_lent() -> None:
    parts = Parts()
    part = parts.add(0, LENGTH)
    parts.wrote(part, HASH_STEP_BYTES - 1, hashed=False)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.arrived, part, wait_s=60)
        assert not parts.lend_hash(part)
        parts.wrote(part, 1, hashed=False)
        assert waiting.result()
    assert part.hashed == 0


def test_a_hash_that_is_lent_is_not_used_until_it_is_back() -> None:
    parts = Parts()
    part = parts.add(0, LENGTH)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.arrived, part, wait_s=60)
        while not parts.lend_hash(part):
            pass
        parts.fail(OSError("something else"))
        assert not waiting.result()
    parts.wrote(part, LENGTH, hashed=True)
    assert parts.arrived(part, wait_s=0)
