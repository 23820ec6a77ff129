"""Inspect existing datasets.

index.py    tars of other tools → sidecars and manifest
verify.py   check a dataset for faults
stats.py    distributions over its clips
show.py     some samples as an HTML page (page.py, page.html, page.css)
"""
