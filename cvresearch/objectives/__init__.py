"""Losses, mixing and metrics."""
