"""What the demo shows at the end of its training; ``pipelines.engine.demo_clips`` makes its data.

result.py   captions held-out clips, makes videos of prompts, has the videos judged
picture.py  draws both as one contact sheet and one GIF
"""
