"""Data sources, the `Dataset` they become, and its splits. Image bytes are not read here.

Start with `sources.load`, which reads a source, and `split.splits_of`, which splits the dataset. The records that
both use are in `dataset`.
"""
