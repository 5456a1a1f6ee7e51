"""`python -m wellseg COMMAND ...` is the console script `wellseg COMMAND ...`."""

from wellseg.cli.main import main

if __name__ == "__main__":
    main()
