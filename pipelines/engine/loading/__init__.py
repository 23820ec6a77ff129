"""Shards to micro-batches.

loader          position -> sample -> text tokenised -> micro-batch of this rank
in_flight       what loader processes hold ready, and whether /dev/shm has room for it
precomputed     frozen features and latents that lie in the shards
workers         loader processes, and what is said when one dies
bad_samples     samples that could not be read: logged, counted, too many stop the run
"""
