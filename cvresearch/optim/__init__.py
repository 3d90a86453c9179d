"""Floor 1: schedules and optimizers as Optax transforms."""
