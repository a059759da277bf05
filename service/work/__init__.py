"""From a prepared image to an encoded answer."""
