"""Clips, shards and the order of samples. Knows nothing of models.

errors.py   what is wrong with data, in one line
video.py    checking and decoding one video file
encode.py   frames → mp4
views.py    the two views of a clip that training needs, from one decode
draws.py    randomness keyed by (seed, position, purpose)
shards/     how clips lie on disk, and how one is read
streaming/  which sample comes when, and to whom
video_files.py  videos of a folder or a table, read without a build
dataset.py  position → decoded sample
build/      sources → checked clips → shards
inspect/    index, verify, stats, show
processes/  work in processes that may die
items.py    multiple-choice questions about videos
shapes/     captioned clips of shapes, drawn by arithmetic, and a judge of them
cli.py      `vtok-shards`
"""
