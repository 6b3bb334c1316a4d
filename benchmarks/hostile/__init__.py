"""Damaged files, malicious requests and killed processes: what is found, answered and kept. Read `uploads` first."""
