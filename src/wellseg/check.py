"""`python -m wellseg.check`: list everything that is wrong with a data set, or with a submission, in one pass."""

from typing import TYPE_CHECKING

from wellseg.cli import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from wellseg.data.problems import Problem

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def run(cfg: "DictConfig") -> None:
    """Print all findings and a count. Raises DataError when something must be fixed: what training, or the challenge,
    would refuse.
    """
    if cfg.submission is not None:
        _check_submission(cfg)
    else:
        _check_data(cfg)


def _check_data(cfg: "DictConfig") -> None:
    from hydra.core.hydra_config import HydraConfig

    from wellseg import build

    datamodule = build.part(cfg, "data", dict(HydraConfig.get().runtime.choices))
    problems = datamodule.check()
    rows = sum(w.num_rows for w in datamodule.wells)
    labelled = sum(w.target is not None for w in datamodule.wells)
    about = f"{len(datamodule.wells)} images of wells ({labelled} labelled), {rows:,} depth rows"
    _print(problems, about, "the data set must be fixed before training")


def _check_submission(cfg: "DictConfig") -> None:
    from wellseg.data.corroseg import check_root
    from wellseg.data.patches import list_patches
    from wellseg.data.problems import raise_errors
    from wellseg.deploy.submission import check_submission

    root, problems = check_root(cfg.data.get("root"), "data=corroseg", ("x_test",))
    raise_errors(problems)
    files, problems = list_patches(root / "x_test")
    problems += check_submission(cfg.submission, [f.name for f in files])
    _print(problems, f"{cfg.submission}, for {len(files):,} patches", "the submission must be fixed")


def _print(problems: "Sequence[Problem]", about: str, refusal: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from wellseg.errors import DataError, WellsegError

    console = Console(soft_wrap=True, highlight=False)
    for severity in ("note", "warning", "error"):
        for problem in (p for p in problems if p.severity == severity):
            text = WellsegError(problem.what, where=problem.where, why=problem.why, fix=problem.fix)
            console.print(Text(f"{severity}: ", style=_COLORS[severity]), Text(str(text)), sep="")
    counts = {s: sum(p.severity == s for p in problems) for s in ("error", "warning", "note")}
    console.print(Text(f"{about}: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items())))
    if counts["error"]:
        raise DataError(refusal, fix="see the errors above")


if __name__ == "__main__":
    run_command("check")
