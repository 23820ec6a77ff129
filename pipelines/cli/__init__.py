"""Command lines: parsing, configuration files, errors in one line."""
