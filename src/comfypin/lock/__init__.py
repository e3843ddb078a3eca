"""The lock itself, pure: read, checked, compared, exported."""
