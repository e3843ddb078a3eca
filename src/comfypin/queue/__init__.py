"""Jobs that wait: kept on disk, run a few at a time, each ended exactly once."""
