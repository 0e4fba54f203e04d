"""Addresses, credentials, connections, requests and responses: bytes from any kind of store."""
