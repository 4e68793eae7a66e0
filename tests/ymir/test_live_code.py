"""Live code: what a clone is given before it starts."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.ymir.live_code import lend_kernels


def program(folder, source, *, is_built):
    for path, content in (("csrc/nms/nms_cpu.cpp", source), ("maskrcnn_benchmark/__init__.py", "")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(content)
    if is_built:
        (folder / "csrc" / "nms" / "nms_cpu.o").touch()  # what is left of the build is no source
        (folder / "maskrcnn_benchmark" / "_C.abi3.so").write_text("kernels")
    return folder


@pytest.mark.parametrize(
    ("source", "is_built", "lends"), [("same", True, True), ("other", True, False), ("same", False, False)]
)
def test_kernels_of_the_same_sources_are_lent(tmp_path, source, is_built, lends):
    image = program(tmp_path / "image", "same", is_built=is_built)
    clone = program(tmp_path / "clone", source, is_built=False)
    assert lend_kernels(image, clone) is lends
    assert (clone / "maskrcnn_benchmark" / "_C.abi3.so").exists() is lends


def test_code_of_others_is_left_alone(tmp_path):
    image = program(tmp_path / "image", "same", is_built=True)
    (tmp_path / "clone").mkdir()
    assert not lend_kernels(image, tmp_path / "clone")
