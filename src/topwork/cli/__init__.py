"""The command line: options, text, bars; no logic. Read `main` first."""
