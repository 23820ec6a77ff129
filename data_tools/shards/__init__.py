"""Shards: how clips lie on disk, and how one is read.

A dataset folder holds

    shard-000000.tar          plain WebDataset tar: KEY.mp4 (or the clip's own ending), KEY.txt, KEY.json
    shard-000000.index.json   its sidecar, written after it: a shard without one is unfinished
    manifest.npy              one `ROW` per sample, memory-mapped, so that all processes share one copy
    manifest.json             the shards and the dataset's hash, written last: a folder without it is unfinished
    rejected.jsonl            what was left out, and why

KEY is a zero-padded number: WebDataset groups members by what stands before the first dot. Tars that others built
have other names and headers; `vtok-shards index` writes the sidecars and the manifest for them. Any WebDataset
reader can stream the tars; `ShardReader` reads any one sample of them, also from an address.

layout.py   the files of the folder: names, rows, sidecars, whole or not there
tars.py     tars of any make as bytes: files and samples, by offset
samples.py  a sample and the tar members it consists of
writer.py   samples → shards, sidecars → manifest
reader.py   row → sample
remote.py   datasets at an address, through a cache that a node's processes share
rejected.py the list of what was left out
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
