"""Operating points: what margin means "copy" on a gallery, measured."""
