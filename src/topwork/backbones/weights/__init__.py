"""Networks built from published weights, `config.json` and `model.safetensors`, without a framework.

Read `build` first.
"""
