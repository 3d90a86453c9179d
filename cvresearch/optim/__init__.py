"""Schedules and optimizers as Optax transforms."""
