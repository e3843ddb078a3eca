"""Measures what an installation weighs, for docs/comparison.md."""
