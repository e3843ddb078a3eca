"""Makes locks, with the network: create, capture, upgrade, vendor."""
