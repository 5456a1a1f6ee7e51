"""`python -m wellseg.check`: list everything that is wrong with a data set, or with a submission, in one pass."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("check")
