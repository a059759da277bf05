"""`python -m service doctor`: is this machine fit to serve, and if not, what to do."""
