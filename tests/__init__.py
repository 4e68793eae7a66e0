"""Tests. A package, so that benchmarks can share its input makers as ``tests.ops.inputs``."""
