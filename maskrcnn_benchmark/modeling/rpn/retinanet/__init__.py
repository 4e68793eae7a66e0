"""RetinaNet: dense detection in one stage."""
