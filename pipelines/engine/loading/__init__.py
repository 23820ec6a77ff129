"""Turns shards into micro-batches.

loader          position -> sample -> text tokenised -> micro-batch of this rank
in_flight       the memory of prepared micro-batches, and whether /dev/shm has room for it
precomputed     frozen features and latents that the shards store
workers         loader processes; one that dies or hangs is replaced
bad_samples     samples that could not be read: logs and counts them; too many stop the run
"""
