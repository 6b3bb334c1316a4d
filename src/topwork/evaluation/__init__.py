"""From labels and probabilities to numbers with their doubt. Never sees a model. Read `evaluate` first."""
