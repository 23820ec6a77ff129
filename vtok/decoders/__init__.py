"""Video decoders, one a file; :mod:`vtok.decoders.base` says what each must tell the rest."""
