"""Acceleration."""
