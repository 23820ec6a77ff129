"""Names that a stream cannot encode are printed as escapes: a file's name need not be UTF-8."""

import os
import sys

from support.launch import checked, run


def test_a_folder_whose_name_is_not_utf_8_is_named(tmp_path):
    place = os.fsdecode(bytes(tmp_path) + b"/\xff-\xc3\xa9")
    command = (sys.executable, "-m", "data_tools.cli")
    rendered = checked(run(*command, "shapes", "--output", place, "--clips", 1, PYTHONIOENCODING="utf-8:strict"))
    assert "/\\udcff-é" in rendered.stdout
    built = checked(run(*command, "build", place, "--output", f"{place}-s", PYTHONIOENCODING="ascii:strict"))
    assert "/\\udcff-\\xe9-s" in built.stdout
