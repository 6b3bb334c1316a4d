"""A drop-in for `tensorflow_hub` on Keras 3 with TensorFlow: `KerasLayer`, `load`, `resolve`.

A program that was written for `tensorflow_hub` changes one line:

    import topwork.tfhub as hub

Importing this loads Keras and TensorFlow; `import topwork` does not.
"""

from topwork.tfhub.layer import KerasLayer
from topwork.tfhub.loading import load, resolve

__all__ = ["KerasLayer", "load", "resolve"]
