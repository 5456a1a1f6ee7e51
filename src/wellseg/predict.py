"""`python -m wellseg.predict`: find the defects in patches and wells; masks, probabilities and a manifest of what was done."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("predict")
