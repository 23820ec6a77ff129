"""The shapes world: captioned clips of a few shapes, whose truth is known, and a judge that reads them from pixels.

words.py     the categories: labels, captions, questions and answers
paths.py     how a shape moves
scene.py     what a clip shows, a function of (seed, its number)
drawing.py   scene → frames
clips.py     a folder of clips with captions.csv and items.jsonl
seeing.py    frames → background, shapes, tracks; shares nothing with drawing.py
judge.py     frames and a question → an answer, or none
"""

from data_tools.shapes.clips import render_clips, scene_items
from data_tools.shapes.drawing import render
from data_tools.shapes.scene import SPLITS, Scene, Thing, draw_scene, scene_of
from data_tools.shapes.words import CATEGORIES, COLOURS, SHAPES, TV_ALIGN, caption_of, item_of

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "SHAPES",
    "SPLITS",
    "TV_ALIGN",
    "Scene",
    "Thing",
    "caption_of",
    "draw_scene",
    "item_of",
    "render",
    "render_clips",
    "scene_items",
    "scene_of",
]
