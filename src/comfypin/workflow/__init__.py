"""Workflows: the graph, its inputs, its texts; all pure."""
