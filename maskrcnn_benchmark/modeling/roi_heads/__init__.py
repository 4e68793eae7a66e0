"""Heads that look at one region at a time."""
