"""What a run tells of itself.

metrics       log.jsonl, validation.jsonl, TensorBoard
console       the terminal
utilisation   share of the devices' arithmetic that is used
validation    losses on held-out clips;  examples: captions and videos of some of them
profiler      traces of chosen steps
"""
