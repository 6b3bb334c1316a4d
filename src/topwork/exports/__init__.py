"""Export a classifier to other formats, and compare each file with the run. Read `formats` first."""
