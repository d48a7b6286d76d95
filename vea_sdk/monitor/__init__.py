"""Sampled monitoring in production."""
