"""The service beside its peers and beside the limits of its machine."""
