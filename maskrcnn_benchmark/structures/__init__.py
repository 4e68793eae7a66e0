"""Boxes, images, masks and batches of targets. Import what you need from the modules of this room."""
