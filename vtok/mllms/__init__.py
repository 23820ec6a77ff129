"""Multimodal language models, one a file; :mod:`vtok.mllms.base` says what each is taken apart into."""
