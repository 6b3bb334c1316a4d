"""Seconds and memory, each beside a baseline measured in the same run. Read `decode` first, it is the simplest."""
