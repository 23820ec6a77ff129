"""Questions that generated videos are judged by, over TV-Align's seven categories.

shapes.jsonl   840 questions about the shapes world, made by `vtok-shards shapes-items --output shapes.jsonl`
natural.jsonl  1,064 questions about everyday scenes, for models of real videos, made by
               `evaluate.py items --output natural.jsonl`
"""

from pathlib import Path

FOLDER = Path(__file__).parent
