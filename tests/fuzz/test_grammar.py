"""Files made from the grammar of their format by hypothesis: programs of a pickle, config trees, COCO documents."""

from __future__ import annotations

import json
import math
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.checkpoint.unpickle import read_arrays
from maskrcnn_benchmark.config import cfg
from tests.fuzz import seeds
from tests.fuzz.jail import Jail
from tests.fuzz.mutate import WRONG, as_json, as_yaml

FEW = 25
MANY = [pytest.param(FEW, id="few"), pytest.param(300, id="many", marks=pytest.mark.slow)]


def searching(count: int) -> settings:
    """The same examples in every run, found without a clock or a data base."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


def confine(jail: Jail, area: str, path: Path, content: bytes, **job: Any) -> str:
    """Use a file in the jail; the outcome, which is used or named."""
    path.write_bytes(content)
    answer = jail.run({"area": area, "path": str(path), **job})
    assert answer["outcome"] in ("used", "named"), answer
    return answer["outcome"]


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.binary(max_size=20)
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(texts, inner, max_size=4),
)


@given(data=st.dictionaries(texts, values, max_size=5), protocol=st.integers(0, 5))
@searching(60)
def test_plain_data_is_read_as_pickle_reads_it(tmp_path: Path, data: dict[str, Any], protocol: int) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    assert read_arrays(str(path)) == data


def _argument(opcode: pickletools.OpcodeInfo) -> st.SearchStrategy[bytes]:
    """Bytes that the argument of an instruction may be."""
    length = opcode.arg.n if opcode.arg is not None else 0
    if length >= 0:
        return st.binary(min_size=length, max_size=length)
    if length == pickletools.UP_TO_NEWLINE:
        words = [b"1", b"-7", b"'text'", b"0.5", b"9" * 5000, b"L", b"nan", b"\\u0041"]
        if opcode.name in ("GLOBAL", "INST"):
            words = [b"os\nsystem", b"numpy\ndtype", b"collections\nOrderedDict", b"builtins\neval", b"numpy\nndarray"]
            words += [b"numpy.core.multiarray\n_reconstruct", b"_codecs\nencode", b"torch._utils\n_rebuild_tensor_v2"]
        return st.sampled_from(words).map(lambda word: word + b"\n")
    form = {-2: "<B", -3: "<i", -4: "<I", -5: "<Q"}[length]
    content = st.binary(max_size=12)
    return st.builds(
        lambda text, wrong: struct.pack(form, len(text) + wrong) + text, content, st.sampled_from([0] * 9 + [1])
    )


instructions = st.sampled_from(pickletools.opcodes).flatmap(
    lambda opcode: _argument(opcode).map(lambda argument: opcode.code.encode("latin-1") + argument)
)
programs = st.lists(instructions, max_size=40).map(lambda pieces: b"\x80\x02}" + b"".join(pieces) + b".")


@pytest.mark.parametrize("count", MANY)
def test_programs_of_a_pickle(jail: Jail, cell: Path, count: int) -> None:
    @given(program=programs)
    @searching(count)
    def run(program: bytes) -> None:
        confine(jail, "weights", cell / "file.pkl", program)

    run()


leaves = st.sampled_from(sorted(cfg.keys_below()))
wrong = st.sampled_from([value for value in WRONG if not isinstance(value, float) or math.isfinite(value)])


@pytest.mark.parametrize("count", MANY)
def test_config_trees(jail: Jail, cell: Path, count: int) -> None:
    jail.prepare([{"area": "config", "path": str(seeds.CONFIGS / seeds.CONFIG_FILES[0])}])

    @given(pairs=st.lists(st.tuples(leaves, wrong | values), min_size=1, max_size=4))
    @searching(count)
    def run(pairs: list[tuple[str, Any]]) -> None:
        tree: dict[str, Any] = {}
        for key, value in pairs:
            *path, leaf = key.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = list(value) if isinstance(value, tuple) else value
        confine(jail, "config", cell / "tree.yaml", as_yaml(json.loads(json.dumps(tree, default=repr))))

    run()


numbers = st.integers(-5, 70) | st.floats(-1e3, 1e3) | wrong
coords = st.lists(numbers, max_size=8)
rles = st.fixed_dictionaries({"size": st.lists(numbers, max_size=3), "counts": coords | texts | wrong})
annotations = st.fixed_dictionaries(
    {"image_id": st.sampled_from([0, 1, 9]) | wrong, "category_id": st.sampled_from([1, 2, 7]) | wrong, "bbox": coords},
    optional={
        "id": wrong, "iscrowd": st.sampled_from([0, 1]) | wrong, "area": numbers, "keypoints": coords,
        "segmentation": st.lists(coords, max_size=3) | rles | wrong,
    },
)  # fmt: skip
images = st.fixed_dictionaries(
    {"id": st.sampled_from([0, 1]) | wrong, "height": numbers, "width": numbers, "file_name": texts}
)
categories = st.fixed_dictionaries({"id": st.sampled_from([1, 2]) | wrong}, optional={"name": texts | wrong})
sound_image = {"id": 0, "height": 48, "width": 64, "file_name": "a.jpg"}


@pytest.mark.parametrize("count", MANY)
def test_coco_documents(jail: Jail, cell: Path, count: int) -> None:
    (cell / "images").mkdir()

    @given(
        document=st.fixed_dictionaries(
            {
                "images": st.lists(images, max_size=2).map(lambda listed: [sound_image, *listed]) | wrong,
                "annotations": st.lists(annotations, max_size=3) | wrong,
                "categories": st.lists(categories, max_size=2).map(lambda listed: [{"id": 7, "name": "x"}, *listed])
                | wrong,
            }
        )
    )
    @searching(count)
    def run(document: dict[str, Any]) -> None:
        entry = {"img_dir": str(cell / "images"), "ann_file": str(cell / "doc.json")}
        confine(jail, "annotations", cell / "doc.json", as_json(document), kind="coco", entry=entry)

    run()
