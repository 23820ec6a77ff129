"""Trains the small models that vtok ships: CLIP, LLaVA-Next and HunyuanVideo in small, for the shapes world.

The study's models come first: CLIP, LLaVA, autoencoder and video decoder, by the study's own stages. Then the decoder
is made to follow text:

config.py     the settings: a profile of configs/shapes_models.yaml
facts.py      what a caption tells, as classes
tower.py      the decoder's text encoder, tuned until it tells every fact of a caption
clips.py      many clips as latents, by the study's autoencoder with further axes
wider.py      the study's decoder with channels for these axes
muon.py       an optimiser that needs fewer steps than AdamW
ranks.py      the decoder's resumable training loop, on one process or several
decoder.py    trains the decoder
judged.py     the pixel judge's answers about its videos
reader.py     the image model, trained further above the states that the decoder reads
family.py     the models in bf16, each with its card
command.py    runs all of it in order
"""
