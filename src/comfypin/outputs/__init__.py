"""Where a caller receives outputs."""
