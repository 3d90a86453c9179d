"""Floor 2: one paper, one file. `registry` finds them."""
