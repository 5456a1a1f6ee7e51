"""Where the checkout lies, for tests that read its files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "wellseg"
CONF = ROOT / "conf"
SHARED = ROOT.parent / "shared"
"""Real files beside the checkout; tests that need them are skipped with a reason where it is missing."""
