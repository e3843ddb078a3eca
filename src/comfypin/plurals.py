"""Says how many there are of a thing, and how large it is."""


def format_count(number: int, thing: str) -> str:
    """Return `1 file` or `2 files`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_size(size_bytes: float) -> str:
    """Return bytes as `1.50 GB`, `20.0 MB`, `3.2 kB` or `12 bytes`."""
    if size_bytes < 1e3:
        return format_count(round(size_bytes), "byte")
    # What rounds to 1000.0 MB is 1.00 GB.
    if size_bytes >= 999.95e6:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def format_limit(limit_bytes: int) -> str:
    """Return a limit that somebody set as `64 MB` or `2.5 GB`: as `format_size`, without zeros at its end."""
    number, unit = format_size(limit_bytes).split()
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def format_rate(bytes_per_s: float) -> str:
    """Return bytes a second as `5.2 MB/s` or `3.2 kB/s`."""
    return f"{format_size(bytes_per_s)}/s"
