"""Floor 4: what was published, beside what our runs found; pictures of both."""
