"""``python -m controller.cli``: the command line, for a process that starts itself again."""

from controller.cli import main

main()
