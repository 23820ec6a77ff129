"""Buckets: a few shapes of videos, so that the clips of a micro-batch are one tensor.

nearest.py  which bucket a sample goes to
auto.py     chooses the buckets of a dataset
order.py    the order of a run, in chunks of one bucket
"""

from data_tools.buckets.auto import choose_buckets
from data_tools.buckets.nearest import Bucket, Bucketing, read_bucket
from data_tools.buckets.order import BucketedOrder

__all__ = ["Bucket", "BucketedOrder", "Bucketing", "choose_buckets", "read_bucket"]
