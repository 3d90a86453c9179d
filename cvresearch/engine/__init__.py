"""Training: experiment, state, steps, phases, checkpoints, the session of a run."""
