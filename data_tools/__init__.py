"""Clips, shards and the order of samples. Imports nothing from the model.

errors.py       errors about data, each one line
video.py        validate and decode one video file
encode.py       frames → mp4
views.py        the two views of a clip that training needs, from one decode
draws.py        randomness keyed by (seed, position, purpose)
locks.py        locks between processes
shards/         the files of a dataset: writing, reading
streaming/      the order of samples, and which rank gets which
video_files.py  videos of a folder or a table, read without a build
dataset.py      position → decoded sample
build/          sources → checked clips → shards
inspect/        index, verify, stats, show
processes/      work in child processes that may crash or hang
items.py        multiple-choice questions about videos
shapes/         synthetic captioned clips of shapes, and a judge that answers from pixels
cli.py          `vtok-shards`
"""
