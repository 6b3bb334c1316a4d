"""A network as an OpenVINO graph: read, pooled, cut, compiled. Read `features` first."""
