"""The study of variants of the motion token: the same tokens and parameters, other contents.

config.py     the settings
world.py      clips of scenes whose questions no single frame answers, and the frozen features of their frames
arm.py        trains one arm with one seed on the questions, and asks it about new scenes
report.py     results.jsonl and the report

The image encoder and the language model are those that the package ships. A run trains the language model, the
projection and ``g_phi`` on answers alone, through the project's own framework. There is no decoder and no generation.
"""
