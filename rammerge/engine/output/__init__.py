"""Laying out and writing the output."""
