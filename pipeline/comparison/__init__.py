"""Comparisons of finished runs, from their folders: a table of several, the difference of two."""
