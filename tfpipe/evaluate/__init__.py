"""Parity, benchmark, report."""
