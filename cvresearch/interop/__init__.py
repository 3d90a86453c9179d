"""Nets of other libraries: files of weights, hubs, names."""
