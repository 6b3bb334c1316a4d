"""Published modules: their names, fetching them, keeping them. Read `handle` first."""
