"""Training of a VidTok, on the engine that trains VTok; ``train_vidtok.py`` runs it.

config      the configuration of a run
data        shards or video files -> micro-batches of clips
players     what the two DeepSpeed engines hold: the autoencoder, and the discriminator
stepping    one optimiser step of each
saving      checkpoints of both, and the weights for everybody else
"""
