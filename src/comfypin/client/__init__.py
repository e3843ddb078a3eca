"""Sends jobs to servers that are elsewhere, follows them and fetches their outputs: serve, RunPod, Comfy API v2."""
