"""Looking at a net: its cost, its features by name."""
