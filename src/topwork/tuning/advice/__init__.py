"""Whether fine-tuning would pay: evidence, forecast, advice. Read `advice` first."""
