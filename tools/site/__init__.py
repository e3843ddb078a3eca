"""Builds the documentation site from `docs/`, in English and Russian."""
