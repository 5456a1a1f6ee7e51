"""Compares recorded numbers with those of today: everywhere to a tolerance, and bit by bit in the recorded environment."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 1e-5
_PACKAGES = ("torch", "numpy", "scipy", "kornia", "pillow", "safetensors", "pytorch-lightning", "torchmetrics")
_PACKAGES += ("onnx", "onnxruntime", "onnxscript")
_SWITCHES = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


def environment() -> dict[str, Any]:
    """Returns what the last bits of a result depend on: processor, versions and switches of the kernels."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "cache size")
    flags = " ".join(sorted((fields.get("flags") or fields.get("Features", "")).split()))
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": {name: fields.get(name, "") for name in names},
        "processor_flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "switches": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
        "versions": versions,
    }


def mode(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Returns "bytes" where both environments are equal, else "close" with what differs."""
    pairs = {k: (v, found["environment"].get(k)) for k, v in recorded["environment"].items()}
    others = [k for k, (a, b) in pairs.items() if a != b]
    return f"close to {TOLERANCE:g}: another {', '.join(others)}" if others else "bytes"


def differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Returns a line for every number, name or hash that differs; empty where everything agrees."""
    levels = ("exact", "close", "bytes") if mode(recorded, found) == "bytes" else ("exact", "close")
    lines = []
    for case in sorted(recorded["cases"].keys() | found["cases"].keys()):
        first, second = recorded["cases"].get(case), found["cases"].get(case)
        if first is None or second is None:
            lines.append(f"{case}: {'not recorded' if first is None else 'recorded, and missing now'}")
            continue
        for level in levels:
            for key in sorted(first[level].keys() | second[level].keys()):
                a, b = first[level].get(key), second[level].get(key)
                if not (_close(a, b) if level == "close" else a == b):
                    lines.append(f"{case}: {key} ({level}): recorded {a}, now {b}")
    return lines


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if a is None or b is None:
        return a is b
    return abs(a - b) <= TOLERANCE * max(1.0, abs(a))
