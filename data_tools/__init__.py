"""Clips, shards and the order of samples. Knows nothing of models.

errors.py   what is wrong with data, in one line
video.py    checking and decoding one video file
views.py    the two views of a clip that training needs, from one decode
draws.py    randomness keyed by (seed, position, purpose)
order.py    which sample stands at which position, and whose turn it is
encode.py   frames → mp4
sources.py  what goes into a build: captions.csv with videos, or folders of frames
shards.py   shards, their sidecars and manifest: written whole, read by row
build.py    sources → checked clips → shards
dataset.py  position → decoded sample
shapes.py   captioned clips of moving shapes, drawn by arithmetic
cli.py      `vtok-shards`
"""
