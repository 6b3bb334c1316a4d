"""Predict whether fine-tuning would pay off: evidence, forecast, advice. Read `advice` first."""
