"""Smaller nets: pruning, factorisation, weight sharing, integers, and the size that each leaves on the disk."""
