"""The network as one program of fixed shapes, and the files that other runtimes load."""
