"""What is kept on disk between runs: the cache's folder, locks, SQLite files. Read `cache` first."""
