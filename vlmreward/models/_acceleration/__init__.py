"""Faster equivalents of parts of transformers' models."""
