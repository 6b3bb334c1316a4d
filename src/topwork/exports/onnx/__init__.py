"""A graph written as ONNX. Read `file` first."""
