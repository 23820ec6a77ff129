"""The parts of a framework that can train, by the names of their parameters. Each may have its own learning rate.

language_model      blocks and last norm of the language model; ``language_model.layers.16-31`` names some blocks
embeddings          its embeddings of text tokens
lm_head             its head
lora                adapters in its blocks (``mllm.lora``)
projector           phi_vis
positions           P
g_phi               the motion encoder, and what else the tokeniser trains
visual_head         the visual heads
decoder_adapter     what the decoder adds
decoder_lora        adapters in the frozen transformer (``decoder.lora``)
"""

import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from vtok.adapter_names import is_adapter
from vtok.config import ConfigError, require

if TYPE_CHECKING:  # torch takes seconds to import, and settings are checked before
    from torch import nn

# Prefix of a parameter's name -> its part. The longest prefix counts.
PREFIXES = {
    "mllm.": "language_model",
    "mllm.causal_lm.model.embed_tokens.": "embeddings",
    "mllm.causal_lm.lm_head.": "lm_head",
    "projection.projector.": "projector",
    "projection.positions.": "positions",
    "tokeniser.": "g_phi",
    "visual_head.": "visual_head",
    "decoder.adapter.": "decoder_adapter",
}
NEVER = ("tokeniser.feature_extractor.",)
ADAPTERS = {"mllm.": "lora", "decoder.": "decoder_lora"}
PARTS = (*PREFIXES.values(), *ADAPTERS.values())
LANGUAGE = ("language_model", "embeddings", "lm_head")  # what peft freezes for its adapters

RANGE = re.compile(r"language_model\.layers\.(\d+)(?:-(\d+))?")
BLOCK = re.compile(r"mllm\.causal_lm\.model\.layers\.(\d+)\.")
EVERYTHING = ""  # the entry of a table without parts


def part_of(name: str) -> str | None:
    """Returns the part that a parameter belongs to; ``None`` if it never trains."""
    if is_adapter(name):
        return next((part for prefix, part in ADAPTERS.items() if name.startswith(prefix)), None)
    prefix = max((prefix for prefix in PREFIXES if name.startswith(prefix)), key=len, default=None)
    return None if prefix is None or name.startswith(NEVER) else PREFIXES[prefix]


def blocks_of(entry: str) -> range | None:
    """Returns the blocks that an entry such as ``language_model.layers.16-31`` names; ``None`` if it names a part."""
    found = RANGE.fullmatch(entry)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else None


def entry_of(name: str, table: Iterable[str]) -> str | None:
    """Returns the entry of a table that a parameter falls under: one of its block, else one of its part, or ``None``.

    Args:
        name: Name of the parameter.
        table: Entries of ``train.parts``; or only ``EVERYTHING``.
    """
    entries = list(table)
    if entries == [EVERYTHING]:
        return EVERYTHING
    part, block = part_of(name), BLOCK.match(name)
    if part == "language_model" and block:
        own = (entry for entry in entries if int(block[1]) in (blocks_of(entry) or ()))
        part = next(own, part)
    return part if part in entries else None


def require_entries(table: Mapping[str, float]) -> None:
    """Raises ConfigError unless the entries of a table are parts or disjoint ranges of blocks, with positive rates."""
    require(len(table) > 0, "train.parts is empty: name what trains, or leave it out")
    for entry, rate in table.items():
        require(
            entry in PARTS or blocks_of(entry) is not None,
            f"train.parts: there is no part {entry}: choose of {', '.join(PARTS)} and language_model.layers.FIRST-LAST",
        )
        require(0 < rate < float("inf"), f"train.parts.{entry} must be positive and finite; leave out what is frozen")
    ranges = {entry: blocks for entry in table if (blocks := blocks_of(entry)) is not None}
    for entry, blocks in ranges.items():
        require(len(blocks) > 0, f"train.parts: {entry} names no block: write the lower number first")
    for (one, ours), (other, theirs) in combinations(ranges.items(), 2):
        require(not set(ours) & set(theirs), f"train.parts: {one} and {other} name the same blocks")


def learnable_names(framework: "nn.Module") -> frozenset[str]:
    """Returns the names of all parameters that can train, in a framework whose parts have not been chosen yet."""
    named = framework.named_parameters()
    return frozenset(name for name, p in named if p.requires_grad or part_of(name) in LANGUAGE)


def train_only(framework: "nn.Module", learnable: Iterable[str], table: Mapping[str, float] | None) -> None:
    """Freezes what a table does not name, and lets the rest train. Without a table nothing changes.

    Args:
        framework: The framework.
        learnable: Names of the parameters that can train.
        table: ``train.parts``.

    Raises:
        ConfigError: An entry names nothing that this model can train.
    """
    if table is None:
        return
    learnable, met = set(learnable), set()
    for name, parameter in framework.named_parameters():
        entry = entry_of(name, table) if name in learnable else None
        parameter.requires_grad_(entry is not None)
        met.add(entry)
    if unmet := [entry for entry in table if entry not in met]:
        raise ConfigError(f"train.parts: this model has no {unmet[0]} that could train: leave it out")
