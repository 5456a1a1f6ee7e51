"""`python -m wellseg.evaluate`: score a run (run=DIR) or a model file (artifact=FILE data=...)."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("evaluate")
