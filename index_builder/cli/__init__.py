"""The commands of `python -m index_builder`: options and what they print."""
