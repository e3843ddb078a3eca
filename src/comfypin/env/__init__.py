"""lock -> env: planned, realized, proved by a receipt."""
