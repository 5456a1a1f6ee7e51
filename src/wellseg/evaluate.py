"""`python -m wellseg.evaluate`: score a run (run=DIR) or a model file (artifact=FILE data=...)."""

from typing import TYPE_CHECKING

from wellseg.cli import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


def run(cfg: "DictConfig") -> float:
    """Write metrics.json and figures into the run folder of this command; returns the validation Dice per image."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from wellseg import artifact
    from wellseg.assembly import assemble_for_scoring
    from wellseg.cli import as_path
    from wellseg.errors import ConfigError
    from wellseg.files import write_json
    from wellseg.results import draw_figures, print_results, score

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir).resolve()
    choices = dict(hydra.runtime.choices)
    asked = [o.lstrip("+").partition("=")[0] for o in hydra.overrides.task]
    if (cfg.run is None) == (cfg.artifact is None):
        raise ConfigError("evaluate takes run=DIR or artifact=FILE, one of them", fix="run= a run folder of train")
    if cfg.run is not None:
        path = as_path(cfg.run) / "model.safetensors"
        cfg, choices = _of_run(as_path(cfg.run), cfg, choices, asked)
    else:
        path = as_path(cfg.artifact)
        if not any(key.split(".")[0] == "data" for key in asked):
            raise ConfigError(
                "artifact= needs data to be scored on", fix="add data=corroseg data.root=DIR, or another set"
            )
    model = artifact.load(path)
    threshold = cfg.metrics.threshold if "metrics.threshold" in asked else model.threshold
    parts = assemble_for_scoring(cfg, folder, choices, model, threshold)
    results, details = score(parts, threshold=threshold)
    if parts.trainer.is_global_zero:
        write_json(folder / "metrics.json", results)
        draw_figures(parts, results, details, folder / "figures")
        print_results(results, {"scores": folder / "metrics.json", "figures": folder / "figures"})
    return results["val"]["dice_per_image"]


def _of_run(
    run_dir: "Path", cfg: "DictConfig", choices: dict[str, str], asked: list[str]
) -> tuple["DictConfig", dict[str, str]]:
    """The configuration of a run with what was `asked` for on this command line, group by group and key by key."""
    from omegaconf import OmegaConf, open_dict

    from wellseg.build import check_stored
    from wellseg.errors import ConfigError

    record = run_dir / ".hydra"
    if not (record / "config.yaml").is_file():
        raise ConfigError("not a run folder", where=str(run_dir), why="it has no .hydra/config.yaml", fix="check run=")
    stored = OmegaConf.load(record / "config.yaml")
    check_stored(stored, str(record / "config.yaml"))
    stored_hydra = OmegaConf.to_container(OmegaConf.load(record / "hydra.yaml"), resolve=False)
    stored_choices = dict(stored_hydra["hydra"]["runtime"]["choices"])
    with open_dict(stored):
        for key in asked:
            if key in ("data", "metrics", "trainer"):
                stored[key] = cfg[key]
                stored_choices[key] = choices[key]
        for key in asked:
            if key not in ("run", "artifact", "data", "metrics", "trainer") and not key.startswith("hydra"):
                OmegaConf.update(stored, key, OmegaConf.select(cfg, key), force_add=True)
        if "fake" in stored.data:
            stored.data.fake = False  # a set that has gone must be missed, not made up
    return stored, stored_choices


if __name__ == "__main__":
    run_command("evaluate")
