"""Walkers of image files: what a file is, and whether it is whole, before it is decoded."""
