"""A drop-in replacement for `tensorflow_hub` on Keras 3 with TensorFlow: `KerasLayer`, `load`, `resolve`.

To use it in a program written for `tensorflow_hub`, change one line:

    import topwork.tfhub as hub

Importing this module loads Keras and TensorFlow; `import topwork` does not.
"""

from topwork.tfhub.layer import KerasLayer
from topwork.tfhub.loading import load, resolve

__all__ = ["KerasLayer", "load", "resolve"]
