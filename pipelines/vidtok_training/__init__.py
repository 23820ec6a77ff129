"""Trains a VidTok, on the engine that trains VTok; ``train_vidtok.py`` runs it.

config      the configuration of a run
data        shards or video files to micro-batches of clips
players     the modules of the two DeepSpeed engines: the autoencoder and the discriminator
stepping    one optimiser step of each engine
saving      checkpoints of both engines, and the weights for inference
"""
