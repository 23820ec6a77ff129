"""The build: from clips to a dataset of shards, by several processes, so that it may be killed at any time.

    this process     plans, hands out shards, shows how far it is, merges at the end
    └─ workers       each packs one whole shard after the other: takes samples from its decoder, writes the tar
       └─ decoders   one for each worker: reads, checks and encodes a clip; may crash or hang, and is replaced

A shard is finished when its sidecar lies on disk. A build that is run again leaves finished shards alone and packs
the others; since a shard's bytes follow from the plan alone, the result is that of a build never disturbed. What is
rejected goes to `rejected.jsonl` with its reason, and the build goes on.

builder.py  one build from beginning to end
plan.py     what it will do: which clips go into which shard
sources/    what goes into it: tables, videos with texts, folders of frames, tars
prepare.py  one clip of the input → one checked sample
transcode.py    a clip cut, scaled and at a steady rate
parts.py    the frames of a part of a long video
state.py    what is done of it, and by whom
progress.py how far it is
merge.py    its last step: one manifest, one list of rejects
command.py  `vtok-shards build` and `merge`
"""

from data_tools.build.builder import build_shards

__all__ = ["build_shards"]
