"""Says how many there are of a thing, and how large it is."""


def format_count(number: int, thing: str) -> str:
    """Return `1 file` or `2 files`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_size(size_bytes: int) -> str:
    """Return bytes as `1.50 GB`, `20.0 MB` or `3.2 kB`."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
