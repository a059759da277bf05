"""API keys: their file, the commands that write it, and the addresses that need them."""
