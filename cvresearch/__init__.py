"""cvresearch: convolutional classifiers, their history, and tables for papers, in JAX and Flax."""

__version__ = '0.2.0'
