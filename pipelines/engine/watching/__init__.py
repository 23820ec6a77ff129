"""What a run tells of itself.

metrics         log.jsonl, validation.jsonl, TensorBoard; console: the terminal
memory, utilisation, flops      of the machine and the model
validation      losses on held-out clips; examples: captions and videos of some of them
profiler        traces of chosen steps
"""
