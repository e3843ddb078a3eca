"""A job, from its wire form to its result."""
