"""Sends jobs to servers that are elsewhere, follows them and fetches their outputs: serve, Runpod, Comfy API v2."""
