"""What the service asks: an opened gallery and exact search with a certificate."""
