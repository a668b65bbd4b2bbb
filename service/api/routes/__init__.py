"""One small router each; those of the operations are made for a way to find the model."""
