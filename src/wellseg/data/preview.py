"""`python -m wellseg.data.preview`: the same as `python -m wellseg.preview`, under the name that users know."""

import runpy

if __name__ == "__main__":
    runpy.run_module("wellseg.preview", run_name="__main__", alter_sys=True)
