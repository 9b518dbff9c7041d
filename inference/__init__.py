"""Weights, resampling, populations and the inference algorithms."""
