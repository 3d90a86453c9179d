"""Sources and the stream. NumPy only: imports neither JAX nor TensorFlow."""
