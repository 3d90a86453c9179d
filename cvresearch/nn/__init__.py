"""Bricks shared by the architectures."""
