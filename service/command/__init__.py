"""The installed command `lipsim`: every program of the project, and questions from a terminal."""
