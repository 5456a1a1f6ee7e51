"""`python -m wellseg.quantize`: a model in fewer bits (artifact=FILE quant=int8), and a report of what that costs."""

from wellseg.cli.main import run_command

if __name__ == "__main__":
    run_command("quantize")
