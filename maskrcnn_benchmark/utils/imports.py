"""Import of a Python file by its path."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def import_file(module_name: str, file_path: str, make_importable: bool = False) -> ModuleType:
    """Run a Python file as a module.

    Args:
        module_name: name that the module gets.
        file_path: the file.
        make_importable: also enter it in sys.modules, so that ``import module_name`` finds it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file's name does not end in .py.
    """
    spec = importlib.util.spec_from_file_location(module_name, file_path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file_path!r} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if make_importable:
        sys.modules[module_name] = module
    return module
