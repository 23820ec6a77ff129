"""Clips, shards and the order of samples. Imports nothing from the model.

cli.py          `vtok-shards`;  commands/: its commands
video/          checks, decodes, cuts and encodes video files
packing/        sources → checked clips → shards
rows/           the rows of tables: .csv, .tsv, .jsonl, .json and .parquet
texts/          captions, questions and conversations, from the fields of any input
shards/         the files of a dataset: writing, reading, fetching
order.py        which sample is at which position of a run, and which rank takes it
buckets/        shapes of videos, and the order with one shape a micro-batch
streaming/      orders made of other orders, and the memory for decoded frames
dataset.py      position → decoded sample
inspect/        index, verify, stats, show
shapes/         synthetic captioned clips of shapes, and a judge that answers from pixels
items.py        multiple-choice questions about videos
processes/      work in child processes that may crash or hang
draws.py        randomness keyed by (seed, position, purpose)
errors.py       errors about data, each one line
locks.py        locks between processes
printing.py     text that a stream cannot encode
recent.py       a small cache of the most recently used results
"""
