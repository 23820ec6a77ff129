"""What train.py runs.

run       a whole run of VTok: prepared or resumed, then step after step
dry_run   the same up to the first step, without writing anything
summary   what a run is, in words and numbers
"""
