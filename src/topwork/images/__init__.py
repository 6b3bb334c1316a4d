"""From an image file's bytes to pixels. Read `decode` first: the only decoder and resizer."""
