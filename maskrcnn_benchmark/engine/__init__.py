"""Training and inference loops; model, data and checkpoints come as arguments."""
