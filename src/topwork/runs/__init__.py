"""The folder that a training writes. Read `folder` first."""
