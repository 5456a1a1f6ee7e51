"""`python -m wellseg.slurm`: a script for sbatch that trains as a run did, and goes on where a time limit stopped it."""

import logging
import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

    from wellseg.config import Composed

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
# ckpt_path=auto goes on with the checkpoint that lies there.
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


def run(composed: "Composed", folder: "Path") -> None:
    """Write the script. Raises ConfigError for what sbatch or train would refuse, and for a folder that is none of a run."""
    from pathlib import Path

    from wellseg.cli.overrides import added_to, recorded
    from wellseg.errors import ConfigError
    from wellseg.files import as_path, write_bytes

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
    training, arguments = compose_training(given, from_folder=cfg.run)
    write_bytes(path, script(cfg, training, arguments, Path.cwd()).encode())
    path.chmod(0o755)
    log.info("%s, for `sbatch`; it trains with %s", path, arguments[-2])


def compose_training(overrides: "Sequence[str]", *, from_folder: str | None) -> "tuple[DictConfig, list[str]]":
    """train's configuration, and its arguments: at the end a folder that does not change, and to go on with what is there.

    The folder is what hydra.run.dir says, else a new one. Raises ConfigError for what train does not take, and for what
    a stored run may not ask for.
    """
    from datetime import datetime
    from pathlib import Path

    from wellseg import config
    from wellseg.build import check_stored
    from wellseg.cli.overrides import value_of
    from wellseg.overrides import key_of, quote_path

    apart = ("hydra.run.dir", "ckpt_path")
    made = config.compose("train", [o for o in overrides if key_of(o) not in apart])
    if from_folder is not None:
        check_stored(made.cfg, from_folder)
    arguments = [o for o in made.all_overrides if key_of(o) != "hydra.mode"]
    new = Path("outputs", "slurm", f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{made.cfg.name}")
    place = Path(value_of("hydra.run.dir", overrides) or new).absolute()
    return made.cfg, [*arguments, quote_path(f"hydra.run.dir={place}"), "ckpt_path=auto"]


def script(cfg: "DictConfig", training: "DictConfig", arguments: "Sequence[str]", here: "Path") -> str:
    """The text of the script. cfg: this command's configuration; training: train's. Raises ConfigError."""
    import sys

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


def _check_forms(cfg: "DictConfig") -> None:
    from wellseg.errors import ConfigError

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


def _gpus(asked: Any, trainer: "DictConfig") -> int:
    """GPUs of the job: `asked`, or as many as the trainer's devices. Raises ConfigError where the two differ."""
    from wellseg.errors import ConfigError

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
