"""Addresses, connections, requests and responses: bytes from any kind of store."""
