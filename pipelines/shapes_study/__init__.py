"""Tests the paper's claims on small models of the shapes world: one command from rendering to a report.

config.py       the settings of a study: a profile of configs/study.yaml
stages.py       a stage fills a folder; a finished stage is not repeated
sharing.py      several processes share the runs
fitting.py      the resumable training loop of the frozen models
render.py       renders clips and questions
clip.py         trains the frozen image encoder on frames and captions; gate: does it bind colours to shapes?
latents.py      fits the frozen autoencoder
llm.py          trains the language model on text
llava.py        trains the image model that joint training starts from
dit.py          trains the frozen video decoder on that model's states; gate: does it follow text alone?
arms.py         trains one tokenisation strategy with the project's own pipeline
evaluation.py   the arm's answers about videos, and the judge's answers about the arm's videos
conditioning.py the decoder's loss with and without the arm's tokens
probe.py        the answers that a small network finds in the arm's features
seeds.py        accuracies over seeds, with intervals
claims.py       the paper's claims: held or missed
curves.py       losses over steps and over seconds
results.py      all measurements in one file
report.py       tables and plots of the measurements
publish.py      copies what is worth keeping
command.py      runs all stages in order
"""
