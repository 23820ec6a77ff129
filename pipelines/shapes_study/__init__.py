"""Studies on the small models of the shapes world that the package ships.

The studies:

strategies/     tests the paper's claims: one command from clips to a report
variants/       compares variants of the motion token

What they share:

arguments.py    their command line
stages.py       a stage fills a folder; a finished stage is not repeated
sharing.py      several processes share the runs
fitting.py      the resumable training loop
config.py       what their settings share
matched.py      hidden widths that make arms equal in parameters
stored_grids.py stored features in place of frames
questions.py    the option of a question that a model finds likeliest
paired.py       the difference of two arms, over seeds and items
power.py        how many seeds and items a difference needs
seeds.py        a mean with its interval
markdown.py     what the tables of all reports share
origin.py       command and commit, for a report's first line
"""
