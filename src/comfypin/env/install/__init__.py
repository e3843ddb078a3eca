"""Builds an env: sources, packages, install scripts, and the import probe."""
