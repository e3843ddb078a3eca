"""Stores of objects: bytes by key in buckets, folders or memory."""
