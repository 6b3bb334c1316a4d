"""A classifier in the formats of other programs: one file a format, each with its writer and its runner."""
