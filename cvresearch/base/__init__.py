"""What knows nothing of images: errors, configurations, meshes, records, command lines."""
