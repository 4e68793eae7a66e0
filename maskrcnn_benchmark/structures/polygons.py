"""Polygons as arrays: packing many into one vector, and exact rings of a bitmap.

With ``mask_to_polygons`` a bitmap or an RLE becomes polygons that fill to the same pixels, so that everything after the
annotations needs one representation only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class PackedPolygons:
    """The polygons of many instances in three vectors. Legend: V vertices, Q rings, I instances.

    An instance's rings are filled one by one and united, as in the COCO format.
    """

    coords: Tensor  # [V, 2] float32, x and y in pixels
    ring_offsets: Tensor  # [Q + 1] int64: ring q has the vertices ring_offsets[q] to ring_offsets[q + 1]
    instance_offsets: Tensor  # [I + 1] int64: instance i has the rings instance_offsets[i] to instance_offsets[i + 1]

    @classmethod
    def from_instances(cls, instances: Sequence[Sequence[np.ndarray | Tensor]]) -> PackedPolygons:
        """Pack instances, each a sequence of rings: flat [2V] or [V, 2] arrays. An instance may have no rings."""
        rings = [np.asarray(ring, dtype=np.float32).reshape(-1, 2) for rings in instances for ring in rings]
        coords = np.concatenate(rings) if rings else np.zeros((0, 2), np.float32)
        ring_offsets = np.cumsum([0, *map(len, rings)], dtype=np.int64)
        instance_offsets = np.cumsum([0, *map(len, instances)], dtype=np.int64)
        return cls(*map(torch.from_numpy, (coords, ring_offsets, instance_offsets)))

    def instance(self, index: int) -> list[Tensor]:
        """Return the rings of one instance, each [V, 2], as views."""
        first, last = self.instance_offsets[index : index + 2].tolist()
        bounds = self.ring_offsets[first : last + 1].tolist()
        return [self.coords[a:b] for a, b in itertools.pairwise(bounds)]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PackedPolygons:
        """Return the polygons on another device."""
        vectors = (self.coords, self.ring_offsets, self.instance_offsets)
        return PackedPolygons(*(v.to(device, non_blocking=non_blocking) for v in vectors))

    def pin_memory(self) -> PackedPolygons:
        """Return the polygons in page-locked memory."""
        return PackedPolygons(*(v.pin_memory() for v in (self.coords, self.ring_offsets, self.instance_offsets)))

    def __len__(self) -> int:
        return self.instance_offsets.shape[0] - 1


# The sides of a pixel, walked clockwise on the screen: the pixel is to the right of each.
TOP, RIGHT, BOTTOM, LEFT = range(4)
START = np.array(((0, 0), (1, 0), (1, 1), (0, 1)))  # (x, y) from the pixel to where the walk along a side starts
AHEAD = np.array(((0, 1), (1, 0), (0, -1), (-1, 0)))  # (row, column) to the pixel in front
AHEAD_LEFT = np.array(((-1, 1), (1, 1), (1, -1), (-1, -1)))  # and to the one on its left


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return rings along the pixels' edges whose fill by pycocotools is the mask, bit for bit.

    Args:
        mask: [h, w], non-zero = object.

    Returns:
        One ring [V, 2] float32 (x, y) for each 4-connected component; none for an empty mask. A hole is joined to the
        ring around it by a bridge of no width that is walked both ways. Bridges are vertical, so that they pass between
        pixel centres; in an even-odd fill their two directions cancel, also after scaling, shifting or flipping.
    """
    mask = np.asarray(mask) != 0
    if mask.ndim != 2:
        raise ValueError(f"a mask must have the shape [h, w], but has {list(mask.shape)}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return []
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    edges, successors = _boundary_edges(mask)
    vertices = edges[:, [2, 1]] + START[edges[:, 0]] + (columns[0], rows[0])
    rings = _join_holes(mask, edges, _cycles(successors))
    return [_without_straight_vertices(vertices[ring]).astype(np.float32) for ring in rings]


def _boundary_edges(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides [E, 3] (side, row, column) between object and background, and the index of each one's successor.

    Where two pixels touch by a corner only, the walk stays with its pixel: each loop bounds one 4-connected component.
    """
    padded = np.pad(mask, 1)
    beyond = np.stack((padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]))
    edges = np.argwhere(mask & ~beyond)
    side, pixel = edges[:, 0], edges[:, 1:]
    ahead, ahead_left = pixel + AHEAD[side], pixel + AHEAD_LEFT[side]
    goes_on = padded[tuple(ahead.T + 1)]
    turns_left = goes_on & padded[tuple(ahead_left.T + 1)]
    next_side = np.where(turns_left, side + 3, np.where(goes_on, side, side + 1)) % 4
    next_pixel = np.where(turns_left[:, None], ahead_left, np.where(goes_on[:, None], ahead, pixel))
    shape = (4, *mask.shape)
    ids = np.ravel_multi_index(tuple(edges.T), shape)  # ascending, because argwhere goes row by row
    return edges, np.searchsorted(ids, np.ravel_multi_index((next_side, *next_pixel.T), shape))


def _cycles(successors: np.ndarray) -> list[np.ndarray]:
    """Split a permutation into its cycles, each an array of indices in walking order."""
    following = successors.tolist()
    seen = bytearray(len(following))
    cycles = []
    for first in range(len(following)):
        cycle, index = [], first
        while not seen[index]:
            seen[index] = 1
            cycle.append(index)
            index = following[index]
        if cycle:
            cycles.append(np.array(cycle))
    return cycles


def _join_holes(mask: np.ndarray, edges: np.ndarray, loops: list[np.ndarray]) -> list[np.ndarray]:
    """Return one walk over edge indices per outer loop, with the loops of its holes spliced in."""
    loop_of, position_of = np.empty(len(edges), np.int64), np.empty(len(edges), np.int64)
    for number, loop in enumerate(loops):
        loop_of[loop], position_of[loop] = number, np.arange(len(loop))
    top_edge = {(row, column): index for index, (side, row, column) in enumerate(edges.tolist()) if side == TOP}
    holes, outers = [], []
    for number, loop in enumerate(loops):
        side, row, column = edges[loop].T
        horizontal = np.flatnonzero((side == TOP) | (side == BOTTOM))
        highest = horizontal[np.argmin((row + (side == BOTTOM))[horizontal])]
        if side[highest] == TOP:
            outers.append(number)
        else:
            holes.append((int(row[highest]), int(column[highest]), number, int(highest) + 1))
    spliced: list[list[tuple[int, np.ndarray]]] = [[] for _ in loops]
    # The bridge goes up from the hole to the first edge above it, which belongs to a loop that starts higher. So the
    # lowest hole comes first, and a hole is complete before it is spliced into another loop.
    for row, column, number, start in sorted(holes, reverse=True):
        background_above = np.flatnonzero(~mask[: row + 1, column])
        above = top_edge[int(background_above[-1]) + 1 if background_above.size else 0, column]
        walk = _splice(np.roll(loops[number], -start), spliced[number], shift=start)
        spliced[loop_of[above]].append((int(position_of[above]), np.append(walk, walk[0])))
    return [_splice(loops[number], spliced[number], shift=0) for number in outers]


def _splice(loop: np.ndarray, walks: list[tuple[int, np.ndarray]], *, shift: int) -> np.ndarray:
    """Insert each walk behind its position of the loop (before it was rolled by ``shift``), and come back there."""
    pieces, done = [], 0
    for position, walk in sorted((((p - shift) % len(loop), w) for p, w in walks), key=lambda item: item[0]):
        pieces += [loop[done : position + 1], walk]
        done = position
    return np.concatenate([*pieces, loop[done:]])


def _without_straight_vertices(vertices: np.ndarray) -> np.ndarray:
    """Drop the vertices of a ring [V, 2] between two steps in the same direction; keep those where it turns back."""
    before, after = vertices - np.roll(vertices, 1, axis=0), np.roll(vertices, -1, axis=0) - vertices
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return vertices[(cross != 0) | ((before * after).sum(axis=1) < 0)]
