"""Logs and measures a run.

metrics       log.jsonl, validation.jsonl, trackers/ (TensorBoard and others);  events: TensorBoard's file
console       the terminal
utilisation   the share of the devices' peak FLOP/s that the run reaches
validation    losses on held-out clips;  examples: captions and videos for some of them
slow_ranks    which rank makes the others wait
profiler      traces of chosen steps
"""
