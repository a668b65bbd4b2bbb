"""Scores files in bulk: in bounded memory, and resumable after whatever ended it."""
