"""Looks inside a net: its cost, features by name, why it answers so, what it has learned."""
