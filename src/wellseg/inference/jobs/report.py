"""The end of `predict`: the final table, and the error that sums up what failed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from wellseg.cli.console import table_text
from wellseg.errors import Bug, DataError, EnvironmentFault, PartialResult, WellsegError
from wellseg.inference.jobs.job import Column
from wellseg.inference.jobs.records import DONE, Record
from wellseg.problems import SHOWN as NAMED
from wellseg.problems import count

log = logging.getLogger("wellseg.predict")

SHOWN = 40
"""Items that the table lists; the manifest has all."""


def print_predictions(
    columns: Mapping[str, Column], unit: str, records: Sequence[Record], totals: Record, manifest: Path
) -> None:
    """Logs the final table, so that the output folder's log file has it too, and the findings of all items."""
    table = Table(title=f"{count(range(totals['done']), 'item')} done, {totals['failed']:,} failed")
    for column in ("item", *columns):
        table.add_column(Text(column), justify="left" if column in ("item", "azimuth") else "right")
    for record in records[:SHOWN]:
        if record["status"] != DONE:
            table.add_row(Text(record["name"]), "failed", style="red")
            continue
        table.add_row(Text(record["name"]), *(text(record) for text in columns.values()))
    if len(records) > SHOWN:
        table.add_row(f"and {len(records) - SHOWN:,} more")
    log.info("%s", table_text(table))
    for record in records:
        for finding in record.get("findings", ()):
            log.warning("%s: %s", record["name"], finding)
    done: int = totals["done"]
    number = totals.get(f"{unit}s", done)
    log.info("%s in %.2f s; %s", count(range(number), unit), totals["seconds"], manifest)


def raise_failures(failures: Sequence[WellsegError], records: Sequence[Record]) -> None:
    """Raises PartialResult where some items or patch files failed, the error itself for a single item."""
    done = [r for r in records if r["status"] == DONE]
    bad_files = [text for r in done for text in r["bad_files"].values()]
    if not failures and not bad_files:
        return
    if not done and len(failures) == 1:
        raise failures[0]
    reasons = [*map(str, failures), *bad_files]
    where = "\n".join(reasons[:NAMED]) + (f"\nand {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else "")
    fix = "fix or remove these inputs, then run the same command again: finished items are kept"
    if done:
        counts = [count(c, noun) for c, noun in ((failures, "item"), (bad_files, "patch file")) if c]
        what = f"{' and '.join(counts)} could not be predicted; {count(done, 'item')} done"
        raise PartialResult(what, where=where, fix=fix)
    kinds = {type(f) for f in failures}
    kind = Bug if Bug in kinds else EnvironmentFault if kinds == {EnvironmentFault} else DataError
    raise kind(f"none of {len(failures):,} items could be predicted", where=where, fix=fix)


def percent(part: int, of: int) -> str:
    """Returns a share in percent, "-" of nothing."""
    return f"{100 * part / of:.2f}" if of else "-"
