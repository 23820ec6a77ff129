"""Clips, shards and the order of samples. Knows nothing of models.

errors.py   what is wrong with data, in one line
video.py    checking and decoding one video file
views.py    the two views of a clip that training needs, from one decode
draws.py    randomness keyed by (seed, position, purpose)
order.py    which sample stands at which position, and whose turn it is
mixture.py  several datasets as one, each with its share
grouping.py samples of like length into one batch
memory.py   frames in memory that a loader process shares
recent.py   the results used last
parts.py    the frames of a part of a long video
encode.py   frames → mp4
transcode.py    a clip cut, scaled and at a steady rate
sources/    what goes into a build: tables, videos with texts, folders of frames, tars
prepare.py  one clip of the input → one checked sample
tars.py     tars of any make as bytes: files and samples, by offset
samples.py  a sample and the tar members it consists of
shards.py   shards, their sidecars and manifest: written whole, read by row
build.py    sources → checked clips → shards, by several processes, with a bar (progress.py)
build_plan.py   what a build will do; build_state.py: what is done of it; merge.py: its last step
rejected.py what was left out, and why
index.py    tars that others built → sidecars and manifest
verify.py   is a dataset what it says it is?
stats.py    what its clips are like
show.py     a look at some of them, as the HTML of page.py
decoder.py  decoding in a process that may crash or hang, in children of child.py
parallel.py one function in several processes
remote.py   datasets at an address, through a cache that a node's processes share
dataset.py  position → decoded sample
shapes.py   captioned clips of moving shapes, drawn by arithmetic
cli.py      `vtok-shards`; its commands' arguments: build_command.py, inspect_commands.py
"""
