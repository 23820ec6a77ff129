"""What the pipelines share around DeepSpeed.

distributed     ranks, rendezvous, rank 0 first
run_control     stopping early, on signals or when the launcher is gone
batch_plan      global batch -> micro-batch and accumulation
setup           DeepSpeed JSON + run -> one ZeRO-3 engine
loader          shards -> micro-batches of this rank
calibration     mean and deviation of the frozen features
checkpoint      save, find, resume, read for inference
metrics         log.jsonl, TensorBoard, progress bar
models          the framework of a run, with its weights' place on disk
"""
