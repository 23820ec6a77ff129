"""Questions that generated videos are judged by, over TV-Align's seven categories.

shapes.jsonl   1,001 questions about the shapes world, made by `vtok-shards shapes-items --output shapes.jsonl`
natural.jsonl  203 questions about everyday scenes, written by us, for models of real videos
"""

from pathlib import Path

FOLDER = Path(__file__).parent
