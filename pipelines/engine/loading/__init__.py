"""Shards to micro-batches.

loader          position -> sample -> text tokenised -> micro-batch of this rank
precomputed     frozen features and latents that lie in the shards
workers         loader processes, and what is said when one dies
bad_samples     samples that could not be read: logged, counted, too many stop the run
"""
