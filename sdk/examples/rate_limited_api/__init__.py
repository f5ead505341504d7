"""Contacts pushed to an API that answers 429 when it is asked too often."""
