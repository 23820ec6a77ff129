"""Tokenisation strategies, one a file; :mod:`vtok.tokenisers.base` says what each must tell the rest."""
