"""VBench (the paper's Table 2): 16 dimensions of generated videos, and Quality, Semantic and Total.

suite.py         the dimensions, and the prompts of VBench's own package
totals.py        scores brought to one scale, and their weighted means
videos.py        which videos are wanted: of the suite's prompts, or of others
run.py           the command: makes the videos, lets VBench score them, writes the table
score.py         runs in VBench's environment: scores one dimension
environment.sh   makes that environment
"""
