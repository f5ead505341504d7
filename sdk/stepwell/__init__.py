"""Durable functions on Redis."""
