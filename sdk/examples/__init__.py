"""Runnable programs; `python -m examples.order_pipeline.demo` runs the first."""
