"""Names that stand for functions and classes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


class Registry(dict[str, Any]):
    """Name -> callable, filled by assignment or with ``register``; ``register`` gives a name once.

    Args:
        name: what the error messages call it.
        modules: name -> the module that registers it, imported when somebody asks for the name.
    """

    def __init__(self, name: str = "registry", modules: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.name = name
        self.modules = dict(modules or {})

    def register(self, name: str, module: Any = None) -> Callable[[Any], Any] | None:
        """Enter ``module`` under ``name``; without ``module`` this is a decorator.

        Raises:
            KeyError: the name is taken by something else.
        """
        if module is not None:
            self._add(name, module)
            return None

        def decorate(target: Any) -> Any:
            self._add(name, target)
            return target

        return decorate

    def _add(self, name: str, module: Any) -> None:
        if name in self and self[name] is not module:
            raise KeyError(f"{name!r} is already in {self.name}, as {self[name]!r}")
        self[name] = module

    def __missing__(self, name: str) -> Any:
        if name in self.modules:
            importlib.import_module(self.modules[name])
            if name in self:
                return self[name]
        known = sorted({*self, *self.modules})
        raise KeyError(f"{name!r} is not in {self.name}; known: {', '.join(known) or 'none'}")
