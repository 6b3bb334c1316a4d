"""`python -m topwork` is `topwork`."""

from topwork.cli import main

main()
