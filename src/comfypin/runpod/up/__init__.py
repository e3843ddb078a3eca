"""From a workflow to an endpoint: chosen, planned, then done step by step; each step can be done again."""
