"""Convert a graph to ONNX. Read `file` first."""
