"""Shards: the files of a dataset, writing and random-access reading.

A dataset folder holds

    shard-000000.tar          plain WebDataset tar: KEY.mp4 (or the clip's own ending), KEY.txt, KEY.json
    shard-000000.index.json   the sidecar, written after the tar: a shard without one is unfinished
    manifest.npy              one `ROW` per sample, memory-mapped, so all processes share one copy
    manifest.json             the shards and the dataset's hash, written last: a folder without it is unfinished
    rejected.jsonl            the rejected clips with reasons

KEY is a zero-padded number, because WebDataset groups members by the part of the name before the first dot. Any
WebDataset reader can stream the tars. `ShardReader` reads single samples, from a folder or from a URL. For tars of
other tools `vtok-shards index` writes the sidecars and the manifest.

layout.py    the files of the folder: names, rows, sidecars, atomic writing
tars.py      tars of any tool as bytes: files and samples, by offset
samples.py   a sample and its tar members
writer.py    samples → shards, sidecars → manifest
manifest.py  the manifest as it is read
reader.py    row → sample
remote.py    datasets at a URL, through a cache that a node's processes share
rejected.py  the list of rejected clips
"""

from data_tools.shards.layout import ROW, atomic_write, read_sidecar, shard_name, sidecar_path
from data_tools.shards.reader import ShardReader
from data_tools.shards.samples import RawSample
from data_tools.shards.writer import write_manifest, write_shard

__all__ = [
    "ROW",
    "RawSample",
    "ShardReader",
    "atomic_write",
    "read_sidecar",
    "shard_name",
    "sidecar_path",
    "write_manifest",
    "write_shard",
]
