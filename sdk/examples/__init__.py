"""Runnable programs: `python -m examples.order_pipeline.demo`, and `python -m examples.NAME.main` for each of the others."""
