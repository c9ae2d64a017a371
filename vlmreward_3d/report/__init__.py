"""A page about a run that needs nothing but itself."""
