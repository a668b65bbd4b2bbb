"""Repository of bundles, their loader, and the registry of loaded models."""
