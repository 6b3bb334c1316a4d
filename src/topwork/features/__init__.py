"""Features, computed once for each image and kept. Read `extract` first."""
