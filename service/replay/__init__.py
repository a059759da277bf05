"""Repeat recorded answers offline, and say whether they hold: `python -m service.replay`."""
