"""Stores behind services: an S3 server, web servers, and a proxy that counts requests and injects faults. `make test-stores`."""
