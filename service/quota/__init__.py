"""Requests a key or an address may make in a window of time."""
