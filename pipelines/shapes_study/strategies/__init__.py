"""The study of the paper's claims: the same models, clips, prompts and noise for every tokenisation strategy.

config.py      the settings: a profile of configs/study.yaml
world.py       the clips to train on and to ask about, and the frozen features of their frames
codecs.py      the codecs of arms that have one of their own, trained on the clips
model.py       an arm's model: the shipped VTok with another tokeniser, its additions untrained
arm.py         trains one arm with one seed, on all three losses
stored.py      a file of visual features
own_tokens.py  visual tokens that an arm samples itself, for the second part of its training
asking.py      what an arm answers about clips
making.py      what an arm's videos show: from the prompt alone, from sampled tokens, from a true clip's own
likeness.py    how far the things of a video are from those of the true clip
cost.py        tokens and training FLOPs of an arm
results.py     results.jsonl: the answers to every item of every run
series.py      the values of an arm that claims and tables compare, by name
claims.py      the paper's claims: held, refuted or undecided
tables.py      the tables of the report
pictures.py    accuracy over tokens and over FLOPs; a GIF for each arm and category
report.py      puts the report together
command.py     runs all stages

The models are those that the package ships. So no base model is trained.
"""
