"""Flow control: one module for each option, with its part of the scripts beside it."""
