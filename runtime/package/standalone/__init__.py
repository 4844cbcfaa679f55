"""Sources that packages carry: they run beside a model without irforge, with NumPy and little else.

Here they are modules like any other, so that they are checked and tested; `shipped` says how they look in a package.
"""

from __future__ import annotations

import re
from importlib.resources import files

_INSIDE = re.compile(r"^from irforge(?:\.\w+)*\.(\w+) import ", re.MULTILINE)


def shipped(module: str) -> str:
    """The source of a module of irforge as a file of its own, whose imports from irforge are its neighbours."""
    package, _, name = module.rpartition(".")
    return _INSIDE.sub(r"from \1 import ", files(package).joinpath(f"{name}.py").read_text())
