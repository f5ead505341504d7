"""Stepwell's own sections of `make bench`: one module each, named in `run.SECTIONS`."""
