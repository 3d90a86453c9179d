"""Methods of learning: each makes an update of its own."""
