"""`python -m wellseg.check`: list everything that is wrong with a data set, or with a submission, in one pass."""

from typing import TYPE_CHECKING

from wellseg.cli import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from wellseg.data.base import SegmentationDataModule
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
    datamodule = _datamodule(cfg)
    problems = datamodule.check(thorough=True)
    _print(problems, datamodule.about, "the data set must be fixed before training")


def _check_submission(cfg: "DictConfig") -> None:
    datamodule = _datamodule(cfg)
    expected, settings = datamodule.submission_rows(), datamodule.submission
    if settings["format"] == "patches":
        from wellseg.deploy.submission import check_submission

        problems, noun = check_submission(cfg.submission, expected), "patches"
    else:
        from wellseg.deploy import image_submission

        problems, noun = image_submission.check(cfg.submission, expected, settings), "images"
    _print(problems, f"{cfg.submission}, for {len(expected):,} {noun}", "the submission must be fixed")


def _datamodule(cfg: "DictConfig") -> "SegmentationDataModule":
    from hydra.core.hydra_config import HydraConfig

    from wellseg import build

    return build.part(cfg, "data", dict(HydraConfig.get().runtime.choices))


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
