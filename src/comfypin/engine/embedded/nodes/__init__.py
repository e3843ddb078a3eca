"""Node classes that the embedded engine executes."""
