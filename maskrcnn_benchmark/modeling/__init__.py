"""The network: backbone, region proposals, box and mask heads."""
