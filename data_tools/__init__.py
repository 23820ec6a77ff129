"""Clips, shards and the order of samples. Knows nothing of models.

errors.py   what is wrong with data, in one line
video.py    checking and decoding one video file
views.py    the two views of a clip that training needs, from one decode
draws.py    randomness keyed by (seed, position, purpose)
order.py    which sample stands at which position, and whose turn it is
parts.py    the frames of a part of a long video
encode.py   frames → mp4
transcode.py    a clip cut, scaled and at a steady rate
sources/    what goes into a build: tables, videos with texts, folders of frames, tars
prepare.py  one clip of the input → one checked sample
shards.py   shards, their sidecars and manifest: written whole, read by row
build.py    sources → checked clips → shards, in processes that may die (child.py), with a bar (progress.py)
build_plan.py   what a build will do; build_state.py: what is done of it; merge.py: its last step
dataset.py  position → decoded sample
shapes.py   captioned clips of moving shapes, drawn by arithmetic
cli.py      `vtok-shards`; build_command.py: its `build` and `merge`
"""
