"""Model files: fetched, verified, shared, collected."""
