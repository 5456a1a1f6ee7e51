"""`python -m wellseg.slurm`: a script for sbatch that trains as a run did, and resumes after a time limit."""

import logging
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wellseg import config
from wellseg.build import check_stored
from wellseg.cli.overrides import added_to, recorded, value_of
from wellseg.commands.result import CommandResult
from wellseg.config import Composed
from wellseg.errors import ConfigError
from wellseg.files import as_path, write_bytes
from wellseg.overrides import key_of, quote_path

log = logging.getLogger("wellseg.slurm")

_FORMS = {
    "partition": (r"[\w,.-]+", "the name of one"),
    "account": (r"[\w.-]+", "the name of one"),
    "mem": (r"\d+[KMGT]?", "such as 64G"),
    "time": (r"\d+|(\d+:)?\d+:\d\d|\d+-\d+(:\d\d){0,2}", "such as 24:00:00 or 2-00:00:00"),
}
"""What sbatch takes, as far as a slip would end in a job that is something else."""

_SCRIPT = """\
#!/bin/bash
# Written by `python -m wellseg.slurm`. The run's folder stays the same however often the job is queued again, and
# ckpt_path=auto resumes from the checkpoint that lies there.
{directives}

cd {here} || exit 1
{setup}# Where this is set, Lightning expects srun to start its processes; it can start those of trainer=ddp itself.
unset SLURM_NTASKS

again= signalled=
# $! is known as soon as the training runs, a variable that is set in the next line would not be.
trap 'again=yes signalled=yes; kill -USR1 $! 2>/dev/null' USR1
trap 'signalled=yes; kill -TERM $! 2>/dev/null' TERM
{command} &
while :; do # a signal ends `wait`, not the training, which saves its state now
    signalled=
    wait $!
    status=$?
    [ -n "$signalled" ] || break
done
[ -z "$again" ] || exec scontrol requeue "$SLURM_JOB_ID"
exit "$status"
"""


@dataclass(frozen=True, kw_only=True, repr=False)
class SlurmResult(CommandResult):
    """A script for sbatch.

    Attributes:
        script: The script.
        folder: The run folder of the training that it starts.
    """

    script: Path
    folder: Path

    def _lines(self) -> list[str]:
        return [f"script: {self.script}", f"trains into: {self.folder}"]


def slurm(composed: Composed, folder: Path) -> SlurmResult:
    """Writes the script.

    Args:
        composed: The configuration of conf/slurm.yaml.
        folder: Only the file `output` is written.

    Raises:
        ConfigError: sbatch or train would refuse a value, or `run` is not a run folder.
    """
    cfg = composed.cfg
    path = as_path(cfg.output)
    if path is None or path.is_dir():
        raise ConfigError(f"output={cfg.output} is no file", fix="a name such as output=job.sh")
    given = list(cfg.train)
    if cfg.run is None and not given:
        fix = "such as experiment=exp53 data=corroseg data.root=DIR trainer=gpu"
        raise ConfigError("slurm takes run=DIR, or the arguments of train, or both", fix=fix)
    if cfg.run is not None:
        given = added_to(recorded(as_path(cfg.run)), given)
    training, arguments, place = compose_training(given, from_folder=cfg.run)
    write_bytes(path, script(cfg, training, arguments, Path.cwd()).encode())
    path.chmod(0o755)
    log.info("%s, for `sbatch`; it trains with %s", path, arguments[-2])
    return SlurmResult(script=path, folder=place)


def compose_training(overrides: Sequence[str], *, from_folder: str | None) -> tuple[DictConfig, list[str], Path]:
    """Returns train's configuration, its arguments, and the run folder, which stays the same when the job is queued again.

    The folder is that of hydra.run.dir, or a new one. The last arguments name it and resume from what lies there.
    Raises ConfigError for what train does not take, and for what a stored run may not name.
    """
    apart = ("hydra.run.dir", "ckpt_path")
    made = config.compose("train", [o for o in overrides if key_of(o) not in apart])
    if from_folder is not None:
        check_stored(made.cfg, from_folder)
    arguments = [o for o in made.all_overrides if key_of(o) != "hydra.mode"]
    new = Path("outputs", "slurm", f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{made.cfg.name}")
    place = Path(value_of("hydra.run.dir", overrides) or new).absolute()
    return made.cfg, [*arguments, quote_path(f"hydra.run.dir={place}"), "ckpt_path=auto"], place


def script(cfg: DictConfig, training: DictConfig, arguments: Sequence[str], here: Path) -> str:
    """Returns the text of the script. cfg: the command's configuration; training: that of train. Raises ConfigError."""
    _check_forms(cfg)
    gpus = _gpus(cfg.gpus, training.trainer)
    directives = {
        "job-name": re.sub(r"[^\w.-]", "_", str(training.name)),
        "partition": cfg.partition,
        "account": cfg.account,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": cfg.cpus,
        "gpus-per-node": gpus or None,
        "mem": cfg.mem,
        "time": cfg.time,
        "signal": f"B:USR1@{cfg.warn}",
        "open-mode": "append",
    }
    options = [f"--{name}={value}" for name, value in directives.items() if value is not None]
    command = [cfg.python or sys.executable, "-m", "wellseg.train", *arguments]
    return _SCRIPT.format(
        directives="\n".join(f"#SBATCH {option}" for option in [*options, "--requeue", *cfg.options]),
        here=shlex.quote(str(here)),
        setup=f"{cfg.setup}\n" if cfg.setup else "",
        command=shlex.join(command),
    )


def _check_forms(cfg: DictConfig) -> None:
    """Raises ConfigError for values that sbatch does not take."""
    for key, (form, example) in _FORMS.items():
        if cfg[key] is not None and not re.fullmatch(form, str(cfg[key])):
            raise ConfigError(f"{key}={cfg[key]}", why="sbatch would not take it", fix=f"{key}= {example}")
    for key in ("cpus", "warn"):
        if type(cfg[key]) is not int or cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]}", fix="a whole number of at least 1")
    for option in cfg.options:
        if not re.fullmatch(r"-[^\n]+", str(option)):
            raise ConfigError(
                f"options: {option}", why="it is no argument of sbatch", fix='such as options=["--constraint=a100"]'
            )


def _gpus(asked: Any, trainer: DictConfig) -> int:
    """Returns the GPUs of the job: `asked`, or the number of the trainer's devices. Raises ConfigError where they differ."""
    if asked is not None and (type(asked) is not int or asked < 0):
        raise ConfigError(f"gpus={asked}", fix="a whole number, or null")
    if trainer.accelerator == "cpu":
        used, fix = 0, "trainer=gpu (or trainer=ddp for several), or gpus=0"
    else:
        used, fix = trainer.devices, f"trainer.devices={asked}" if asked else "trainer=cpu, or gpus=1"
    if type(used) is not int or used < 0:  # "auto" and -1: all that the job has
        return 1 if asked is None else asked
    if asked not in (None, used):
        raise ConfigError(f"gpus={asked}, and the run trains on {used or 'none'}", fix=fix)
    return used
