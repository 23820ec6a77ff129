"""The notebook runs from its first cell to its last, with the shipped models."""

import time
from pathlib import Path

import pytest

TOUR = Path("pipelines/tour.ipynb")


@pytest.mark.slow
def test_the_tour_runs_in_under_two_minutes():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(TOUR, as_version=4)
    start = time.monotonic()
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": "."}}).execute()
    assert time.monotonic() - start < 240  # twice the bound: other tests run beside it
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if {"image/gif", "image/png"} & set(output.get("data", {}))]
    said = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert len(pictures) == 3
    assert "'tokens': (28, 96)" in said and "Describe this video. -> " in said and "(9, 3, 32, 32)" in said


def test_it_is_committed_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(TOUR, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
