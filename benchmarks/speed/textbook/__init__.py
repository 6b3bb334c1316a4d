"""`topwork train` beside the transfer-learning program of the textbooks, on the same photos. Read `compare` first."""
