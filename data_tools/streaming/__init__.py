"""The endless sequence of samples that a run goes through, as arithmetic, and the memory it is read into.

order.py    which sample stands at which position, and whose turn it is
mixture.py  several datasets as one, each with its share
grouping.py samples of like length into one batch
recent.py   the results used last
memory.py   frames in memory that a loader process shares
"""
