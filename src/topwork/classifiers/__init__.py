"""A backbone, a head and class names: predicts, explains, saves. Read `classifier` first."""
