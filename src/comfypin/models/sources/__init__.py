"""Where model files come from: hubs, buckets, HTTP servers and this machine."""
