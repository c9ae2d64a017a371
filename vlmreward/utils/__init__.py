"""Utilities that all other sub-packages use: files, arguments, warnings, progress bars."""
