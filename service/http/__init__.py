"""From a socket to a request, in the order a request meets it."""
