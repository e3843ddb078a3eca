"""An output folder, synced to a bucket, losing nothing."""
