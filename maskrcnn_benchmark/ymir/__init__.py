"""The executor of the YMIR platform: trains, mines and infers by the files below /in, and answers below /out."""
