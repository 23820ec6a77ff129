"""The order of a run's samples, as pure arithmetic, and the memory for decoded frames.

order.py     which sample is at which position, and which rank takes it
mixture.py   several datasets as one, with weights
grouping.py  batches of samples of similar length
recent.py    a small cache of the most recently used results
memory.py    tensors in memory that loader processes share with the trainer
"""
