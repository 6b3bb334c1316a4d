"""Where trained networks come from."""
