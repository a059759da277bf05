"""`python -m index_builder`: build and look after indexes."""

from index_builder.cli.commands import app

if __name__ == "__main__":
    app(prog_name="python -m index_builder")
