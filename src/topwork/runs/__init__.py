"""The folder that `topwork train` writes. Read `folder` first."""
