"""Nets of other libraries and of our own runs: one name, one object."""
