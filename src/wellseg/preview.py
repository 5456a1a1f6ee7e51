"""`python -m wellseg.preview`, or `wellseg preview`: the command of wellseg.data.preview."""

from wellseg.cli import run_command
from wellseg.data.preview import run

__all__ = ["run"]

if __name__ == "__main__":
    run_command("preview")
