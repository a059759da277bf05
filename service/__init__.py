"""HTTP: an image in; ranked gallery items, distances and certified radii out."""
