"""The lock: read, checked, made, compared."""
