"""HTTP server of the service: uvicorn with its own protocol."""
