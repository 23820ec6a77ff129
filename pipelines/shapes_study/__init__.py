"""Studies on small models of the shapes world, and the base models that the shipped ones start from.

The studies:

strategies/     tests the paper's claims: one command from clips to a report
variants/       compares variants of the motion token

What they share:

arguments.py    their command line
stages.py       a stage fills a folder; a finished stage is not repeated
sharing.py      several processes share the runs
fitting.py      the resumable training loop
stored_grids.py stored features in place of frames
questions.py    the option of a question that a model finds likeliest
paired.py       the difference of two arms, over seeds and items
power.py        how many seeds and items a difference needs
seeds.py        a mean with its interval
origin.py       command and commit, for a report's first line

The base models (``pipelines/shapes_models`` goes on from them):

command.py      runs these stages in order
config.py       their settings: a profile of configs/base_models.yaml
scenes.py       captions that say where things are
render.py       renders clips and questions
clip.py         trains the image encoder on frames and captions; gate: does it bind colours to shapes?
latents.py      fits the autoencoder
llm.py          trains the language model on text
llava.py        trains the image model that joint training starts from
dit.py          trains the video decoder on that model's states
arms.py         joint training with the project's own pipeline
curves.py       a learning curve in few points
evaluation.py   what judging the models needs
"""
