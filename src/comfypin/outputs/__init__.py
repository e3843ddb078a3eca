"""Sinks, where a caller receives outputs: buckets, folders, files, or the result itself."""
