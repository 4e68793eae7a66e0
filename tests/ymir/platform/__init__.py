"""A stand-in for the YMIR platform: it makes /in, runs the executor, reads /out, cleans up, and keeps models.

Written from YMIR's executor protocol alone. It imports nothing of ``maskrcnn_benchmark``, so that what both sides agree
on is the protocol, and not a mistake that they share.
"""
