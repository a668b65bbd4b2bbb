"""The online service: loads bundles and responds to requests over HTTP."""

VERSION = "0.1.0"
