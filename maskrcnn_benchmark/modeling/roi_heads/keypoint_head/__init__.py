"""Keypoint head: named points of each detected object."""
