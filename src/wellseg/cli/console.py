"""What a terminal shows: tables as text."""

import io
import sys

from rich.console import Console
from rich.table import Table


def table_text(table: Table) -> str:
    """A table as text, for the screen and for the run's log; as wide as the terminal, or wide enough where there is none."""
    text = io.StringIO()
    console = Console(file=text, highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    return text.getvalue().rstrip()
