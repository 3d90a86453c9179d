"""Floor 3: state, steps, checkpoints, evaluation, counting."""
