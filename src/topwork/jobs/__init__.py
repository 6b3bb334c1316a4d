"""One file for each verb of the command line. Read `train` first: the whole job, top to bottom."""
