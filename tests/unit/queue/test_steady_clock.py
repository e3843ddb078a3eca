"""A clock that does not jump."""

from comfypin.queue.steady_clock import steady_clock


def test_what_the_wall_clock_is_set_to_later_does_not_matter() -> None:
    wall, elapsed = [1000.0], [5.0]
    now = steady_clock(wall=lambda: wall[0], elapsed=lambda: elapsed[0])
    assert now() == 1000
    wall[0], elapsed[0] = -86_400.0, 7.5
    assert now() == 1002.5
