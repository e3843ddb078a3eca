"""The node classes that the embedded engine executes."""
