"""Protocols of other servers, on the same operations and limits."""
