"""The page at `/`, on which people try the models in a browser."""
