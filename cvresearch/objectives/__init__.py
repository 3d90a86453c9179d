"""Floor 1: losses, mixing and metrics."""
