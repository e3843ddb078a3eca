"""Runs the tests, and what failed once more alone, as CPython's own runner does."""
