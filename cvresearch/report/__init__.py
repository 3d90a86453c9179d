"""What was published, beside what our runs found; plots of both."""
