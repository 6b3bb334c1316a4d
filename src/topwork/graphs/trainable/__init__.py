"""A graph as a trainable Keras layer. Read `layer` first."""
