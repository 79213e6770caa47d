"""`python -m evoloss`."""

from evoloss.cli import main

if __name__ == "__main__":
    main()
