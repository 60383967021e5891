"""`python -m busd`: the same as the command `busd`."""

from busd.wiring.cli import main

if __name__ == "__main__":
    main()
