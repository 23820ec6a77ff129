"""Questions on which generated videos are judged, over TV-Align's seven categories.

shapes.jsonl   1,001 about the shapes world: `vtok-shards shapes-items --output shapes.jsonl`
natural.jsonl  203 of our own about everyday scenes, for models of real videos
"""

from pathlib import Path

FOLDER = Path(__file__).parent
