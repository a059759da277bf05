"""The format on disk: versions and their files, names, items, operating points."""
