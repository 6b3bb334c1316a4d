"""Metrics with confidence intervals, computed from labels and probabilities. Read `evaluate` first."""
