"""A handle becomes files, and these a backbone with its engine. Read `backbone` first."""
