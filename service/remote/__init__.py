"""The optional Redis: asked with little patience, believed in nothing, missed by nobody."""
