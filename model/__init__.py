"""The network, its certificates and the one path from image bytes to an embedding."""
