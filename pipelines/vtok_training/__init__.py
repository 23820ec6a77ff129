"""What train.py runs.

run       a whole run of VTok: prepares or resumes it, then takes its steps
dry_run   checks a run up to its first step, without writing anything
summary   describes a run in short lines
"""
