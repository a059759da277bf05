"""`python -m service.command`: `lipsim` where no script is installed."""

from service.command.main import main

main()
