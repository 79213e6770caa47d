"""`python -m evoloss`."""

from evoloss.cli import main

main()
