"""Trains the small models that vtok ships: small versions of CLIP, LLaVA-Next and HunyuanVideo for the shapes world.

The study's own stages first train the study's CLIP, LLaVA, autoencoder and video decoder. Then this package trains the
decoder to follow text:

config.py     the settings: a profile of configs/shapes_models.yaml
facts.py      the facts of a caption, as classes
tower.py      the decoder's text encoder, tuned until its vector holds every fact of a caption
clips.py      many clips as latents of the study's autoencoder with further axes
wider.py      adds these axes to the autoencoder, and channels for them to the study's decoder
muon.py       an optimiser that needs fewer steps than AdamW
ranks.py      the decoder's resumable training loop, on one process or several
decoder.py    trains the decoder
judged.py     the pixel judge's answers about the decoder's videos
captions.py   compares the facts of the language model's captions with those of the clips
family.py     the models in bf16, each with its card
command.py    runs all of it in order
"""
