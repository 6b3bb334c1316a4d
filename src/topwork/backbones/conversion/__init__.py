"""Modules that a framework has to read: converted once, then kept. Read `convert` first."""
