"""Fine-tuning a network by gradient descent in Keras 3, on TensorFlow, JAX or PyTorch. Read `tune` first."""
