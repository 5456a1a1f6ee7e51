"""Jobs behind make targets. Those that import benchmarks or a neighbour run as `python -m scripts.<name>` from the root of the
checkout (image_set, firmware, firmware_report); the others run as files from any folder, `python scripts/<name>.py`.
"""
