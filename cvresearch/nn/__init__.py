"""Floor 1: bricks shared by the architectures."""
