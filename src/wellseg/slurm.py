"""`python -m wellseg.slurm`: a script for sbatch that trains as a run did, and goes on where a time limit stopped it."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("slurm")
