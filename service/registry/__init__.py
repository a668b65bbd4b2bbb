"""Bundles that exist, their loading, and the models that are loaded."""
