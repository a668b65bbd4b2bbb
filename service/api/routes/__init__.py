"""The operations, one file each, and one small router each for the rest."""
