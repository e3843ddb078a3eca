"""The lock as a container image."""
