"""`python -m windowshift`."""

from windowshift.cli import main

if __name__ == "__main__":
    main()
