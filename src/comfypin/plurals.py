"""Says how many there are of a thing."""


def format_count(number: int, thing: str) -> str:
    """Return `1 file` or `2 files`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
