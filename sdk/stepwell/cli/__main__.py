"""`python -m stepwell.cli`: the `stepwell` command, for child processes and odd paths."""

from stepwell.cli import main

main()
