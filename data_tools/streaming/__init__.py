"""Orders made of other orders, and the memory for decoded frames.

mixture.py   several datasets as one, with weights
grouping.py  batches of samples of similar length
memory.py    tensors in memory that loader processes share with the trainer
"""
