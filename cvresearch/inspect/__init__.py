"""Looks inside a net: why it answers so, and what it has learned."""
