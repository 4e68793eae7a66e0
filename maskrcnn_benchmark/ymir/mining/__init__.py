"""Mining: which pictures to annotate next."""

from maskrcnn_benchmark.ymir.mining.job import mine, validate_mining

__all__ = ["mine", "validate_mining"]
