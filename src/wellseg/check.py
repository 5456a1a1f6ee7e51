"""`python -m wellseg.check`: list everything that is wrong with a data set, in one pass."""

from typing import TYPE_CHECKING

from wellseg.cli import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def run(cfg: "DictConfig") -> None:
    """Print all findings and a count. Raises DataError when something must be fixed: what training would refuse."""
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console
    from rich.text import Text

    from wellseg import build
    from wellseg.errors import DataError, WellsegError

    datamodule = build.part(cfg, "data", dict(HydraConfig.get().runtime.choices))
    problems = datamodule.check()
    console = Console(soft_wrap=True, highlight=False)
    for severity in ("note", "warning", "error"):
        for problem in (p for p in problems if p.severity == severity):
            text = WellsegError(problem.what, where=problem.where, why=problem.why, fix=problem.fix)
            console.print(Text(f"{severity}: ", style=_COLORS[severity]), Text(str(text)), sep="")
    counts = {s: sum(p.severity == s for p in problems) for s in ("error", "warning", "note")}
    rows = sum(w.num_rows for w in datamodule.wells)
    labelled = sum(w.target is not None for w in datamodule.wells)
    console.print(
        f"{len(datamodule.wells)} images of wells ({labelled} labelled), {rows:,} depth rows: "
        + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items())
    )
    if counts["error"]:
        raise DataError("the data set must be fixed before training", fix="see the errors above")


if __name__ == "__main__":
    run_command("check")
