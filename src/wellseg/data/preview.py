"""Runs `python -m wellseg.preview` under its second name, `python -m wellseg.data.preview`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("wellseg.preview", run_name="__main__", alter_sys=True)
