"""What processors can compute in a second, and how much of that a computation uses."""

from __future__ import annotations

# Dense matrix products in TFLOP/s as the makers' data sheets give them, by a part of the device's name; the first row
# that fits counts. Half precision adds up in float32. A type that is not there has no fast unit.
PEAK_TFLOPS: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"float32": 75.0, "tf32": 1125.0, "float16": 2250.0, "bfloat16": 2250.0}),
    ("H200", {"float32": 67.0, "tf32": 494.7, "float16": 989.4, "bfloat16": 989.4}),
    ("GH200", {"float32": 67.0, "tf32": 494.7, "float16": 989.4, "bfloat16": 989.4}),
    ("H100 PCIe", {"float32": 51.2, "tf32": 378.0, "float16": 756.0, "bfloat16": 756.0}),
    ("H100", {"float32": 67.0, "tf32": 494.7, "float16": 989.4, "bfloat16": 989.4}),
    ("A100", {"float32": 19.5, "tf32": 156.0, "float16": 312.0, "bfloat16": 312.0}),
    ("A30", {"float32": 10.3, "tf32": 82.0, "float16": 165.0, "bfloat16": 165.0}),
    ("A40", {"float32": 37.4, "tf32": 74.8, "float16": 149.7, "bfloat16": 149.7}),
    ("L40S", {"float32": 91.6, "tf32": 183.0, "float16": 362.0, "bfloat16": 362.0}),
    ("L4", {"float32": 30.3, "tf32": 60.0, "float16": 121.0, "bfloat16": 121.0}),
    ("V100", {"float32": 15.7, "float16": 125.0}),
    ("T4", {"float32": 8.1, "float16": 65.0}),
    ("RTX 4090", {"float32": 82.6, "tf32": 82.6, "float16": 165.2, "bfloat16": 165.2}),
    ("RTX 3090", {"float32": 35.6, "tf32": 35.6, "float16": 71.0, "bfloat16": 71.0}),
)


def peak_tflops(device_name: str, dtype: str) -> float | None:
    """The peak of a device in TFLOP/s; None where the table does not know it.

    Args:
        device_name: as the driver gives it, such as "NVIDIA H100 80GB HBM3".
        dtype: as DTYPE names it: float32, tf32, float16, bfloat16.
    """
    words = device_name.replace("-", " ").split()
    for name, peaks in PEAK_TFLOPS:
        wanted = name.split()
        if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
            return peaks.get(dtype)
    return None


def model_flops_utilization(flops: float, seconds: float, tflops: float) -> float:
    """The share of a peak, 0 to 1, that so many operations in so much time are."""
    return flops / seconds / (tflops * 1e12)
