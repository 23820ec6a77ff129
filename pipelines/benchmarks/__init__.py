"""The measurements behind ``bench.py``: ratios within one run, of what we do to what bounds it."""
