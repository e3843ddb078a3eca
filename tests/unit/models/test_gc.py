"""Which blobs go: least recently used first, and none that a kept release names unless asked."""

from comfypin.digest import Digest
from comfypin.models.gc import BlobUse, choose_blobs


def blob(name: str, *releases: str, size: int = 10, used_at: float = 0) -> BlobUse:
    return BlobUse(digest=Digest.of(name.encode()), size_bytes=size, used_at=used_at, releases=releases)


OLD = blob("old", "a", used_at=1)
SHARED = blob("shared", "a", "b", used_at=2)
NEW = blob("new", "b", used_at=3)
LOOSE = blob("loose", used_at=4)
ALL = [OLD, SHARED, NEW, LOOSE]


def test_without_a_budget_all_that_no_kept_release_names_goes() -> None:
    assert choose_blobs(ALL, kept_releases={"b"}, budget_bytes=None) == [OLD, LOOSE]


def test_a_budget_ends_it_as_soon_as_the_rest_fits() -> None:
    assert choose_blobs(ALL, kept_releases=set(), budget_bytes=25) == [OLD, SHARED]


def test_what_fits_is_left_alone() -> None:
    assert choose_blobs(ALL, kept_releases=set(), budget_bytes=40) == []


def test_a_budget_does_not_touch_kept_releases() -> None:
    assert choose_blobs(ALL, kept_releases={"a", "b"}, budget_bytes=0) == [LOOSE]


def test_kept_ones_go_last_where_that_is_asked_for() -> None:
    assert choose_blobs(ALL, kept_releases={"a"}, budget_bytes=10, even_kept=True) == [NEW, LOOSE, OLD]
