"""`python -m wellseg.preview data=... augment=...`: a picture of what training is going to see."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("preview")
