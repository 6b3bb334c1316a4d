"""From a source to a `Dataset` and its splits: names, labels and places of images, never a pixel.

`sources.load` reads a source, `split.splits_of` parts it; `dataset` holds the records both speak of.
"""
