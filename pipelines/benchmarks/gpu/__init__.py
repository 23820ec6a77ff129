"""The kit for a GPU: what ``python pipelines/bench.py gpu`` spends its minutes on, the most valuable first.

command      the command line;  running: parts in processes of their own;  parts: which, in which order
findings     figures, and the files they are written to;  measure: time, memory, kernels
sizes        the published shapes and tiny ones;  published: the published models with random weights

marked_tests   products   transformer   attention   whole_step (sharded)   autoencoder   language_model
save_buffers   loader   vidtok                                           one part each: ``findings(sizes, device)``

wheels.sh    gathers what a bare GPU machine lacks;  on_device.sh: unpacks that there and runs the kit
"""
