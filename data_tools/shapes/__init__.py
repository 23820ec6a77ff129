"""The shapes world: synthetic captioned clips with known answers, and a judge that answers from pixels.

vocabulary.py  shapes, colours, and the categories with their labels, phrases and answers
paths.py       how a shape moves
scene.py       what a clip shows: a function of (seed, clip number)
words.py       scene → caption, question and options
drawing.py     scene → frames
cuts.py        clips of two scenes with a cut between them
clips.py       a folder of clips with captions.csv and items.jsonl
seeing.py      frames → background, shapes, tracks; shares no code with drawing.py
judge.py       frames and a question → an answer, or None
reading.py     a caption → its facts; is it right of a scene?
"""

from data_tools.shapes.clips import render_clips, scene_items
from data_tools.shapes.cuts import CutScene, cut_item, draw_cut_scene, render_cut
from data_tools.shapes.drawing import render, render_at
from data_tools.shapes.reading import caption_is_right
from data_tools.shapes.scene import SPLITS, Scene, Thing, draw_scene, scene_of
from data_tools.shapes.vocabulary import CATEGORIES, COLOURS, SHAPES, TV_ALIGN
from data_tools.shapes.words import caption_of, item_of

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "SHAPES",
    "SPLITS",
    "TV_ALIGN",
    "CutScene",
    "Scene",
    "Thing",
    "caption_is_right",
    "caption_of",
    "cut_item",
    "draw_cut_scene",
    "draw_scene",
    "item_of",
    "render",
    "render_at",
    "render_clips",
    "render_cut",
    "scene_items",
    "scene_of",
]
