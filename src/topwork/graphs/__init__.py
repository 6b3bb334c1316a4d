"""Networks as OpenVINO graphs: reading, pooling, cutting, compiling. Read `features` first."""
