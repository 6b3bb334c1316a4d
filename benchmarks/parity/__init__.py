"""Whether imported networks and exported classifiers give the numbers of the original. Read `export_parity` first."""
