"""A classifier in other programs' formats, checked against the run. Read `formats` first."""
