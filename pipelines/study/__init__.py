"""The paper's claims in small, on the shapes world: one command from rendering to a report.

config.py       what a study is made of: a profile of configs/study.yaml
stages.py       a stage has a folder; what is done is not done again
fitting.py      the training loop of the frozen models, resumable
render.py       clips and questions
clip.py         the frozen image encoder, trained on frames and captions; gate: does it bind colours to shapes?
latents.py      the frozen autoencoder, fitted
llm.py          the language model, from text
llava.py        the image model that joint training starts from
dit.py          the frozen video decoder, conditioned on that language model; gate: does text alone reach it?
arms.py         joint training of one tokenisation strategy, by the real pipeline
evaluation.py   its answers about videos, and answers about its videos
conditioning.py what its tokens are worth to the frozen decoder
probe.py        what its features hold, whether it has learned to read them or not
seeds.py        accuracies over seeds, with intervals
claims.py       the paper's claims: held or missed
curves.py       losses over steps and seconds
results.py      all that was measured, as one file
report.py       tables and plots made of it
publish.py      what is kept of a study
command.py      all of it in order
"""
