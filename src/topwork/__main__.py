"""`python -m topwork` is `topwork`."""

from topwork.cli.main import main

main()
