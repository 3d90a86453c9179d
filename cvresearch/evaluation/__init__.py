"""What a trained net is worth: protocols, kept predictions, ensembles, runs read back."""
