"""Leases on shared volumes, where flock may silently be nothing: atomic create, owner, heartbeat, expiry."""
