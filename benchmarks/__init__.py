"""Benchmarks: a folder for each page, which holds its text, code and figures. Run one as `python -m benchmarks.<page>`."""
