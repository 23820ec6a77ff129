"""What train.py runs.

run   a whole run of VTok: prepared or resumed, then step after step
"""
