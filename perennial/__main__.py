"""``python -m perennial``: the command where its script is not on the path."""

from perennial.cli.app import main

main()
