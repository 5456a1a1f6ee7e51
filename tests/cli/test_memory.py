import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from wellseg.cli.memory import keep_freed_memory
import torch
told = keep_freed_memory() if sys.argv[1] == "kept" else None
assert told is not False
def use():
    for _ in range(20):
        torch.ones(16 << 20)  # 64 MB, above every threshold that glibc chooses by itself
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_freed_memory_is_used_again_without_a_page_fault():
    def faults(how):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") * 10 < faults("default")
