"""An OpenVINO graph as a trainable Keras layer. Read `layer` first."""
