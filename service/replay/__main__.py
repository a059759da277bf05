"""`python -m service.replay`."""

import sys

import typer

from service.replay.command import main

if __name__ == "__main__":
    sys.exit(typer.run(main))
