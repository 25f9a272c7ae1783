"""Intervals and resampling: pure numbers in, pure numbers out."""
