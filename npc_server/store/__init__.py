"""Redis: keys, scripts, leases, and a server of our own where none is given."""
