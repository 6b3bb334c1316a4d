"""Decode, resize and augment images. Read `decode` first: it is the only decoder and resizer."""
