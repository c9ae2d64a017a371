"""From a field to a closed surface, its texture and the files of other programs."""
