"""Pretrained weights: where they lie, how they are read, and how a module gets them.

location.py      a folder, a shipped model or a hub id; its JSON files
tensors.py       the tensors of a file, a range at a time
checkpoint.py    one file, or several with an index
part.py          which stored tensor belongs to which parameter
surplus.py       stored weights that a model has no place for
materialise.py   a module's parameters, one after the other, from its parts
precision.py     which parameters stay fp32
library.py       what a library raises at a user's file, in one line
field_types.py   the types of a diffusers configuration
tokenizer.py     tokenizers
own_folder.py    folders of this project's own models
shipped.py       the models that the package ships
"""

from vtok.weights.checkpoint import DIFFUSERS_FILES, TRANSFORMERS_FILES, Checkpoint
from vtok.weights.location import Location, ReadConfig, first_line
from vtok.weights.part import Part, shape_of, shapes_of
from vtok.weights.tensors import (
    PIECE,
    SafeTensor,
    StoredTensor,
    combined_hash,
    content_hash,
    open_file,
    open_safetensors,
)

__all__ = [
    "DIFFUSERS_FILES",
    "PIECE",
    "TRANSFORMERS_FILES",
    "Checkpoint",
    "Location",
    "Part",
    "ReadConfig",
    "SafeTensor",
    "StoredTensor",
    "combined_hash",
    "content_hash",
    "first_line",
    "open_file",
    "open_safetensors",
    "shape_of",
    "shapes_of",
]
