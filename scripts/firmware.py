#!/usr/bin/env python
"""Exports the smallest model image that passes its gate as a C header, with the runtime and its costs.

    python -m scripts.firmware MODEL [--folder outputs/firmware]

Quantizes MODEL with each of CANDIDATES (a finished quantization of the same file is used again), takes the one whose
image is smallest of those that the gate let pass, and exports it with scripts/firmware_report.py.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.firmware_report import report
from wellseg import artifact, build, config
from wellseg.errors import BAD_INPUT, ConfigError, WellsegError
from wellseg.export.firmware import export_firmware, image_of
from wellseg.files import path_sha256
from wellseg.quant.compression import REPORT
from wellseg.quant.report import settings_of

CANDIDATES = ("int3", "int4", "int8")


def main() -> int:
    try:
        return run()
    except WellsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def run() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.firmware", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a model.safetensors; a quantized one is taken as it is")
    parser.add_argument("--folder", type=Path, default=Path("outputs/firmware"))
    given = parser.parse_args()
    if artifact.load(given.model).packed:
        return embed(given.model, given.folder)
    tried = {quant: quantized(given.model, quant, given.folder / quant) for quant in CANDIDATES}
    table = Table("quantization", "gate", "model file", "firmware image", "validation Dice", "test Dice")
    images = {}
    for quant, found in tried.items():
        status, scores, image = found["status"], found.get("scores") or {}, "-"
        if status == "done":
            try:
                images[quant] = len(image_of(artifact.load(given.folder / quant / "model.safetensors")))
                image = f"{images[quant]:,} bytes"
            except ConfigError as error:
                image = error.what
        size = f"{found['result']['bytes']:,} bytes" if "result" in found else "-"
        table.add_row(quant, status, size, image, *(_dice(scores.get(part)) for part in ("val", "test")))
    Console(width=140).print(table)
    if not images:
        print("error: no quantization passed its gate and fits the firmware", file=sys.stderr)
        return BAD_INPUT
    smallest = min(images, key=images.__getitem__)
    chosen = given.folder / smallest / "model.safetensors"
    print(f"{smallest} it is")
    return embed(chosen, given.folder)


def embed(model: Path, folder: Path) -> int:
    """Write the image, header and sources of a quantized model into `folder`, and print what they cost."""
    image = export_firmware(model, folder)
    print(f"{image} and the header and sources beside it\n")
    print("\n".join(report(model, image)))
    return 0


def quantized(model: Path, quant: str, folder: Path) -> dict:
    """report.json of this quantization of the model, made now unless it is there. Exits where it fails."""
    path = folder / REPORT
    settings = settings_of(build.part(config.load("quantize", [f"quant={quant}"]), "quant", {"quant": quant}))
    asked = {"source": path_sha256(model), "quant": json.loads(json.dumps(settings))}

    def made() -> dict | None:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        mine = {"source": found.get("source", {}).get("sha256"), "quant": found.get("quant")}
        return found if mine == asked else None

    if found := made():
        print(f"using {folder}", flush=True)
        return found
    call = [sys.executable, "-m", "wellseg.quantize", f"artifact={model}", f"quant={quant}", f"hydra.run.dir={folder}"]
    print("$ python", *call[1:], flush=True)
    code = subprocess.run(call).returncode
    if found := made():  # a refusal by the gate leaves its report, too
        return found
    raise SystemExit(code or 1)


def _dice(scores: dict | None) -> str:
    return "-" if not scores else f"{scores['before']['dice_per_image']:.4f} -> {scores['after']['dice_per_image']:.4f}"


if __name__ == "__main__":
    sys.exit(main())
