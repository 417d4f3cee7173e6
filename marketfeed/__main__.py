"""``python -m marketfeed`` is the ``marketfeed`` command."""

from marketfeed.cli import main

main()
