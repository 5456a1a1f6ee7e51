"""Maps the modules that `_target_`s of older run folders name to where their classes and functions are now.

A module with targets that moves gets a row here, and every row stays: run folders outlive releases.
"""

from typing import Any

MODULES = {
    # 0.2.0
    "wellseg.callbacks.distillation": "wellseg.training.distillation",
    "wellseg.data.airbus": "wellseg.data.datasets.airbus.module",
    "wellseg.data.augment": "wellseg.data.augment.wells",
    "wellseg.data.carvana": "wellseg.data.datasets.carvana.module",
    "wellseg.data.corroseg": "wellseg.data.datasets.corroseg.module",
    "wellseg.data.corroseg_course": "wellseg.data.datasets.corroseg.course",
    "wellseg.data.corroseg_synthetic": "wellseg.data.datasets.corroseg.with_synthetic",
    "wellseg.data.echocem": "wellseg.data.datasets.echocem.module",
    "wellseg.data.image_augment": "wellseg.data.augment.images",
    "wellseg.data.stanford2d3d": "wellseg.data.datasets.stanford2d3d.module",
    "wellseg.data.synthetic": "wellseg.data.datasets.synthetic.module",
    "wellseg.deploy.augmentation": "wellseg.inference.tta",
    "wellseg.deploy.postprocess": "wellseg.inference.cleanup",
    "wellseg.schedules": "wellseg.training.schedules",
}


def update_targets(node: Any) -> Any:
    """Returns a plain configuration (dict, list or leaf) in which every `_target_` has its present name."""
    if isinstance(node, dict):
        return {key: _current(value) if key == "_target_" else update_targets(value) for key, value in node.items()}
    return [update_targets(value) for value in node] if isinstance(node, list) else node


def _current(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module, _, name = target.rpartition(".")
    return f"{MODULES.get(module, module)}.{name}"
