"""Runpod: its management API, deployments, volumes, and the Serverless worker."""
