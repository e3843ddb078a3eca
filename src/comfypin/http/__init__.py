"""The synchronous HTTP client that models, registries, RunPod and job inputs share, over urllib3."""
