"""Codecs that decode into bounded memory."""
