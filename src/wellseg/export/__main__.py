"""`python -m wellseg.export`: a model for another engine, in one file, compared with the model file before it is there."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("export")
