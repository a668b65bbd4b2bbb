"""Pipelines: from a recipe to a published bundle, and from bundle to bundle."""
