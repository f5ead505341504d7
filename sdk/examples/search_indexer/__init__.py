"""A search index that follows documents while they are edited."""
