"""What Topwork can do, measured: each file is a program that prints a table of docs/benchmarks.md.

Run them from the repository's root as modules, `python -m benchmarks.speed.decode --help`. `figures` measures what
the README quotes (`make bench`); read it first. `accuracy`, `speed`, `parity` and `hostile` are the subjects;
`data` makes the pictures and `options` the command lines that several of them have in common.
"""
