"""Files stored between runs: the cache folder, locks, SQLite databases. Read `cache` first."""
