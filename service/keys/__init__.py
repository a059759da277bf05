"""API keys: their file and its commands, the rate of each key, the addresses that need one."""
