"""Checks of the data: near-duplicates, mislabelled images, odd pictures. Read `findings` first."""
