"""A competition: what the files train.py and predict.py at the root do, and the check before the code is handed in."""
