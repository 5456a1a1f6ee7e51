"""Every module of the package has a test file of its own name at the mirrored place, or is listed here with what covers it."""

import pytest
from places import ROOT, SOURCE

TESTS = ROOT / "tests"

COVERED = {
    # Commands: each module is the entry point of a function in commands/, which has the tests.
    "check.py": "commands/test_check.py",
    "evaluate.py": "commands/test_evaluate.py",
    "predict.py": "commands/test_predict.py",
    "preview.py": "commands/test_preview.py",
    "quantize.py": "commands/test_quantize.py",
    "slurm.py": "commands/test_slurm.py",
    "train.py": "commands/test_train.py",
    "data/preview.py": "commands/test_preview.py",
    # Configuration and its shell: covered by what users type.
    "build.py": "test_experiments.py",
    "cli/commands.py": "test_config.py",
    "cli/options.py": "cli/test_main.py",
    "cli/overrides.py": "commands/test_slurm.py",
    "cli/processes.py": "test_ddp.py",
    "composition/checks.py": "test_config.py",
    "composition/hydra_api.py": "cli/test_main.py",
    "composition/values.py": "test_config.py",
    "commands/score_lines.py": "commands/test_result.py",
    "types.py": "metrics/test_functional.py",
    # Callbacks and scores: covered by whole runs, which are interrupted, resumed and made to fail.
    "callbacks/access.py": "commands/test_train.py",
    "callbacks/checkpoint.py": "commands/test_resume.py",
    "callbacks/finite.py": "commands/test_train.py",
    "callbacks/panels.py": "commands/test_train.py",
    "callbacks/progress.py": "test_ddp.py",
    "callbacks/requeue.py": "commands/test_resume.py",
    "evaluation/scores.py": "commands/test_evaluate.py",
    "training/task.py": "training/test_objectives.py",
    # Data: the parts of a data set are covered by the tests of its module, readers by those that use them.
    "data/augment/draws.py": "data/augment/test_wells.py",
    "data/datasets/airbus/fake.py": "data/datasets/airbus/test_module.py",
    "data/datasets/carvana/fake.py": "data/datasets/carvana/test_module.py",
    "data/datasets/echocem/fake.py": "data/datasets/echocem/test_module.py",
    "data/datasets/stanford2d3d/labels.py": "data/datasets/stanford2d3d/test_module.py",
    "data/datasets/stanford2d3d/rooms.py": "data/datasets/stanford2d3d/test_fake.py",
    "data/datasets/synthetic/casing.py": "data/datasets/synthetic/test_module.py",
    "data/datasets/synthetic/clutter.py": "data/datasets/synthetic/test_module.py",
    "data/datasets/synthetic/groove.py": "data/datasets/synthetic/test_module.py",
    "data/images/module.py": "data/datasets/airbus/test_module.py",
    "data/io/arrays.py": "inference/jobs/test_well_inputs.py",
    "data/io/rows.py": "inference/test_wells.py",
    "data/io/zarr_chunks.py": "data/io/test_zarr_array.py",
    "data/module.py": "data/datasets/corroseg/test_module.py",
    "data/store.py": "data/wells/test_windows.py",
    "data/wells/findings.py": "data/wells/test_restore.py",
    "data/wells/module.py": "data/datasets/corroseg/test_module.py",
    # Serving and export: covered by the predictors and commands that they are parts of.
    "export/formats.py": "commands/test_export.py",
    "export/openvino_export.py": "commands/test_export.py",
    "export/torch_export.py": "commands/test_export.py",
    "inference/base.py": "inference/test_predictor.py",
    "inference/engines/base.py": "inference/engines/test_onnx_engine.py",
    "inference/engines/onnx_file.py": "inference/engines/test_onnx_engine.py",
    "inference/engines/open.py": "inference/engines/test_onnx_engine.py",
    "inference/engines/pipeline.py": "inference/test_wells.py",
    "inference/engines/torch_engine.py": "inference/test_wells.py",
    "inference/jobs/collisions.py": "commands/test_predict_resume.py",
    "inference/jobs/found.py": "commands/test_predict.py",
    "inference/jobs/inputs.py": "inference/jobs/test_well_inputs.py",
    "inference/jobs/job.py": "commands/test_predict_faults.py",
    "inference/jobs/manifest.py": "commands/test_predict_resume.py",
    "inference/jobs/progress.py": "commands/test_predict_faults.py",
    "inference/jobs/report.py": "commands/test_predict_faults.py",
    "inference/jobs/settings.py": "commands/test_predict.py",
    "inference/jobs/well_rows.py": "commands/test_predict_units.py",
    "inference/jobs/wells.py": "commands/test_predict_resume.py",
    "inference/submission/csv_stream.py": "inference/submission/test_formats.py",
    "inference/submission/run_lengths.py": "inference/submission/test_formats.py",
    "plots/quantization.py": "quant/test_report.py",
    "plots/samples.py": "commands/test_preview.py",
    "plots/wells.py": "data/explore/test_statistics.py",
    # Losses, metrics and networks: families, whose members are tested together against the same references.
    "losses/bce_dice.py": "losses/test_bce.py",
    "losses/pixels.py": "losses/test_loss_contract.py",
    "metrics/image_counts.py": "metrics/test_segmentation.py",
    "models/basic_unet.py": "models/test_peers.py",
    "models/flexible_unet.py": "models/test_peers.py",
    "models/layers.py": "models/test_networks.py",
    "models/micro.py": "models/test_networks.py",
    "models/stacked.py": "models/test_networks.py",
    "models/summary.py": "models/test_networks.py",
    "models/unet.py": "models/test_image_unets.py",
    "models/unet_1024.py": "models/test_image_unets.py",
    "models/unet_classic.py": "models/test_networks.py",
    "models/unet_flex.py": "models/test_course.py",
    "models/unet_original.py": "models/test_image_unets.py",
    "models/vanilla.py": "models/test_networks.py",
    # Quantization: the steps of the static scheme, and of the command.
    "quant/compression.py": "commands/test_quantize.py",
    "quant/equalize.py": "quant/test_static.py",
    "quant/progress.py": "commands/test_quantize.py",
    "quant/quantizer.py": "quant/test_gate.py",
    "quant/ranges.py": "quant/test_static.py",
    "quant/simulation.py": "quant/test_static.py",
    "quant/speed.py": "quant/test_report.py",
    "quant/static_graph.py": "quant/test_static.py",
    "quant/tuning.py": "quant/test_static.py",
}
"""Module below src/wellseg -> the test file, below tests/, that covers most of it."""

MODULES = sorted(
    path.relative_to(SOURCE).as_posix()
    for path in SOURCE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def own_test(module):
    """The test file of a module's own name at the mirrored place."""
    folder, _, name = module.rpartition("/")
    return TESTS / folder / f"test_{name}"


def test_modules_are_found():
    assert "artifact.py" in MODULES
    assert own_test("data/io/rle.py") == TESTS / "data" / "io" / "test_rle.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_tests_of_its_name_or_is_listed(module):
    assert own_test(module).is_file() != (module in COVERED), (
        f"{module}: write {own_test(module).relative_to(ROOT)} or add the module to COVERED in this file, not both"
    )


def test_the_list_names_only_what_exists():
    assert sorted(COVERED.keys() - set(MODULES)) == []
    assert sorted(path for path in set(COVERED.values()) if not (TESTS / path).is_file()) == []
