"""Teachers of the published recipe, behind one small interface."""
