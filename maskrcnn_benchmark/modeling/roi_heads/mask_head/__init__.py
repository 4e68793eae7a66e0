"""Mask head: one mask for each detected object."""
