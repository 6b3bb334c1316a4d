"""The command line: options, output text and progress bars. Read `main` first."""
