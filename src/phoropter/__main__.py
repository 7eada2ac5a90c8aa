"""`python -m phoropter`."""

from phoropter.cli import main

if __name__ == "__main__":
    main()
