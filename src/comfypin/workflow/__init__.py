"""Workflows: the graph, its inputs, its texts. Nothing here touches the network or an engine."""
