"""Pictures that benchmarks measure with, written once to benchmarks/work. `packaged` has the small datasets."""
