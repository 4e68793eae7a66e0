"""The rules of the house that can be read from the source: who imports whom, who reads the config, what stays out."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "maskrcnn_benchmark"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

FLOORS = {
    "ops": 0, "utils": 0,
    "structures": 1, "layers": 1, "solver": 1, "config": 1,
    "modeling": 2, "data": 2, "checkpoint": 2,
    "engine": 3, "evaluation": 3, "export": 3, "tracking": 3,
    "apps": 4, "ymir": 4,
}  # fmt: skip
SAME_FLOOR = {("engine", "evaluation"), ("engine", "tracking"), ("ymir", "apps")}
# Published import paths that lie on a lower floor than what they name: a docstring and one import, nothing else.
FACES = {
    "utils/checkpoint.py": {"checkpoint"},
    "data/datasets/evaluation.py": {"evaluation"},
    "engine/tester.py": {"apps"},
}
EXTENSION_IMPORTER = "ops/_library.py"

CONFIG_SECTIONS = {
    "MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER", "TEST", "OUTPUT_DIR", "DTYPE", "NHWC", "SEED",
    "PATHS_CATALOG", "PER_EPOCH_EVAL", "MIN_BBOX_MAP", "MIN_MASK_MAP", "SAVE_CHECKPOINT", "USE_TORCH_DDP",
}  # fmt: skip
CONFIG_READERS = re.compile(r"_*(from_config|build(_\w+)?|make_\w+|validate(_\w+)?)$")
# (file, function): reads of the config elsewhere, each with its reason.
CONFIG_EXCEPTIONS = {
    ("apps/predict.py", "from_checkpoint"): "the config comes out of the checkpoint",
    ("apps/coco_demo.py", "__init__"): "COCODemo(cfg) is a published signature",
}
# Files that name the global tree, each with its reason.
GLOBAL_CONFIG_EXCEPTIONS = {
    "apps/predict.py": "the config of a checkpoint is merged into the defaults",
    "apps/report/settings.py": "the config of a run and the published ones are merged into the defaults",
}
# A table reads no better in two halves.
LONG_FILES = {"config/defaults.py": "one line for each key"}


@functools.cache
def parse(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"), filename=file)


def imported_modules(file: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the file, also inside functions; relative ones resolved."""
    package = ["maskrcnn_benchmark", *Path(file).parent.parts]
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def room_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "maskrcnn_benchmark" and len(parts) > 1 else None


def import_faults(file: str) -> list[str]:
    own = Path(file).parts[0] if len(Path(file).parts) > 1 else None
    faults = []
    for line, name in imported_modules(file):
        room = room_of(name)
        if room is None or room not in FLOORS or room == own:
            continue
        if own is None:
            faults.append(f"{file}:{line} imports {name}; the package itself imports nothing")
        elif FLOORS[room] >= FLOORS[own] and (own, room) not in SAME_FLOOR and room not in FACES.get(file, set()):
            faults.append(f"{file}:{line} ({own}, floor {FLOORS[own]}) imports {name} (floor {FLOORS[room]})")
    return faults


def test_every_room_has_a_floor():
    rooms = {Path(file).parts[0] for file in FILES if len(Path(file).parts) > 1}
    assert rooms <= set(FLOORS), f"give {rooms - set(FLOORS)} a floor in this file and in docs/architecture.md"


def test_imports_go_down():
    assert [fault for file in FILES for fault in import_faults(file)] == []


@pytest.mark.parametrize("file", sorted(FACES))
def test_faces_are_only_faces(file):
    assert file in FILES, "the face is gone: take it off the list"
    for node in parse(file).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_export_list = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert is_docstring or is_export_list or isinstance(node, ast.ImportFrom), ast.unparse(node)


def test_a_lazy_import_upward_is_found(monkeypatch):
    source = "def f():\n    from maskrcnn_benchmark.engine import trainer\n    return trainer\n"
    monkeypatch.setitem(globals(), "parse", lambda file: ast.parse(source))
    assert import_faults("modeling/x.py") == [
        "modeling/x.py:2 (modeling, floor 2) imports maskrcnn_benchmark.engine.trainer (floor 3)"
    ]
    assert not import_faults("apps/x.py")


def test_only_the_library_imports_the_extension():
    importers = {file for file in FILES for _, name in imported_modules(file) if "maskrcnn_benchmark._C" in name}
    assert importers <= {EXTENSION_IMPORTER}


def test_the_global_config_is_named_only_by_entry_points():
    pattern = re.compile(r"maskrcnn_benchmark\.config(\.\w+)?\.(cfg|_C)")
    importers = {file for file in FILES for _, name in imported_modules(file) if pattern.fullmatch(name)}
    assert {file for file in importers if not file.startswith("config/")} == set(GLOBAL_CONFIG_EXCEPTIONS)


def config_reads(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """(function, line, expression) of each read of a config section outside the functions that may read it."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if not CONFIG_READERS.match(child.name):
                    yield from visit(child, child.name)
                continue
            if isinstance(child, ast.Attribute) and child.attr in CONFIG_SECTIONS:
                yield function, child.lineno, ast.unparse(child)
            yield from visit(child, function)

    yield from visit(tree, "<module>")


def test_the_config_stops_at_the_door():
    found = [
        f"{file}:{line} {expression} in {function}"
        for file in FILES
        if not file.startswith("config/")
        for function, line, expression in config_reads(parse(file))
        if (file, function) not in CONFIG_EXCEPTIONS
    ]
    assert found == [], "read it in from_config, build_*, make_* or validate, and hand on the value"


def test_config_exceptions_are_needed():
    present = {(file, function) for file, _ in CONFIG_EXCEPTIONS for function, _, _ in config_reads(parse(file))}
    assert set(CONFIG_EXCEPTIONS) <= present, "an exception without a use: take it off the list"


def test_a_config_read_is_found():
    source = "def forward(self):\n    return self.cfg.MODEL.MASK_ON\ndef build_x(cfg):\n    return cfg.MODEL.X\n"
    assert list(config_reads(ast.parse(source))) == [("forward", 2, "self.cfg.MODEL")]


def habits(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}: print; use the logger"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            yield f"line {node.lineno}: .cuda(); use .to(device)"


def test_habits():
    assert [f"{file} {fault}" for file in FILES for fault in habits(parse(file))] == []


def test_habits_are_found():
    tree = ast.parse("try:\n    print(x.cuda())\nexcept:\n    pass\n")
    assert len(list(habits(tree))) == 3


def test_files_stay_short():
    lines = {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {file for file, count in lines.items() if count > 300} == set(LONG_FILES)


def newly_imported(module: str) -> set[str]:
    code = f"import sys; import {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_imports_nothing():
    heavy = {"torch", "numpy", "cv2", "pycocotools", "tensorboard", "apex", "torchvision", "yacs"}
    assert not newly_imported("maskrcnn_benchmark") & heavy


def test_the_model_needs_no_image_or_logging_library():
    heavy = {"cv2", "tensorboard", "apex", "torchvision", "matplotlib"}
    assert not newly_imported("maskrcnn_benchmark.modeling.detector") & heavy


def test_each_kernel_folder_has_its_op_and_its_test():
    for folder in sorted(path.name for path in (REPOSITORY / "csrc").iterdir() if path.is_dir()):
        if folder != "common":
            assert (PACKAGE / "ops" / f"{folder}.py").exists(), f"csrc/{folder} has no ops/{folder}.py"
            assert (REPOSITORY / "tests" / "ops" / f"test_{folder}.py").exists(), f"csrc/{folder} has no test"


def test_sources_are_clean():
    pytest.importorskip("ruff", reason="ruff is not installed")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "."], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
