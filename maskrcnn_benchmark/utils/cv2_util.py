"""One face for the OpenCV versions."""

from __future__ import annotations

from typing import Any

import cv2


def findContours(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """``cv2.findContours`` as (contours, hierarchy) for every OpenCV; version 3 returns the image before them."""
    contours, hierarchy = cv2.findContours(*args, **kwargs)[-2:]
    return contours, hierarchy
