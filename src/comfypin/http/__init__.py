"""The synchronous HTTP client that models, registries, Runpod and job inputs share, over urllib3."""
