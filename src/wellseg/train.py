"""`python -m wellseg.train`: train a model and leave a run folder with checkpoints, scores, figures and the model file."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("train")
