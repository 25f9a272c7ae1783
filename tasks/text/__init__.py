"""Texts compared and recognised: similarity, normalisation, refusals."""
