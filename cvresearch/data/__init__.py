"""Floor 1: sources and the stream. NumPy only: imports neither JAX nor TensorFlow."""
