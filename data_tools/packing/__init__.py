"""Build a dataset of shards from clips, with several processes. A build may be killed at any time.

    this process     plans, assigns shards, shows progress, merges at the end
    └─ workers       each packs whole shards, one after another: takes samples from its decoder, writes the tar
       └─ decoders   one per worker: reads, checks and encodes a clip; replaced if it crashes or hangs

A shard is finished when its sidecar is on disk. A build that is run again keeps finished shards and packs the others.
A shard's bytes depend on the plan alone, so the result equals that of an uninterrupted build. A rejected clip goes to
`rejected.jsonl` with its reason, and the build continues.

builder.py    one build from start to end
beginning.py  write the plan, or refuse a folder with shards of others
plan.py       which clips go into which shard
sources/      the inputs: tables, videos with texts, folders of frames, tars
prepare.py    one clip of the input → one checked sample
transcode.py  re-encode a clip: cut, scale, constant frame rate
parts.py      decode part of a long video
state.py      the build's files and locks
progress.py   counters and the progress bar
merge.py      the last step: one manifest, one list of rejected clips
"""

from data_tools.packing.builder import build_shards

__all__ = ["build_shards"]
