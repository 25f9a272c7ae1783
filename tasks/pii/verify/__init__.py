"""Verification: evidence about scrubbed text by means that share no code with the scrubber, only its tables of words."""
