"""From the bytes of a file to the input of the network: the space of all radii."""
