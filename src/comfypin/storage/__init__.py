"""Bytes by key: GCS, S3, a directory."""
