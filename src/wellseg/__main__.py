"""`python -m wellseg COMMAND ...` is the console script `wellseg COMMAND ...`."""

from wellseg.cli import main

if __name__ == "__main__":
    main()
