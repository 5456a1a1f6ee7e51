"""Records the numbers that a refactor must reproduce in tests/golden/, or compares with them (--check).

    python scripts/record_golden.py --check              compares all groups; exits 1 with what differs
    python scripts/record_golden.py --only predictions   records one group; existing files need --overwrite

What is measured is written at the head of tests/helpers/recording.py, where hashes are compared at that of comparing.py.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: with more threads, sums have another order
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import comparing
import recording


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a number differs, 2 where a file would be replaced or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of recording")
    parser.add_argument("--overwrite", action="store_true", help="replace recorded files")
    parser.add_argument("--only", nargs="+", choices=list(recording.GROUPS), default=list(recording.GROUPS))
    options = parser.parse_args(arguments)
    files = {group: recording.GOLDEN / f"{group}.json" for group in options.only}
    wrong = [p for p in files.values() if p.exists() != options.check]
    if wrong and (options.check or not options.overwrite):
        what, fix = ("missing", "record first") if options.check else ("recorded already", "--overwrite replaces it")
        print("\n".join(f"error: {path.name} is {what}; {fix}" for path in wrong), file=sys.stderr)
        return 2
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        for group, path in files.items():
            found = recording.record(group, Path(folder) / group)
            if not options.check:
                path.write_text(json.dumps(found, indent=1, sort_keys=False) + "\n", encoding="utf-8")
                print(f"{group}: {len(found['cases'])} cases recorded in {path.name}")
                continue
            recorded = recording.stored(group)
            lines = comparing.differences(recorded, found)
            code = 1 if lines else code
            print(f"{group}: {len(lines)} differences, compared by {comparing.mode(recorded, found)}")
            print("".join(f"  {line}\n" for line in lines), end="")
    return code


if __name__ == "__main__":
    sys.exit(main())
