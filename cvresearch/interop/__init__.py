"""Nets of others, and ours for others: weights, their files, and what a derived net is kept in."""
