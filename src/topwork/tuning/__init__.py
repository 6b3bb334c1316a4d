"""Learning by gradient descent: a graph as a Keras 3 layer. Needs Keras, on TensorFlow, JAX or PyTorch."""
