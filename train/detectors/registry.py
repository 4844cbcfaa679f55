"""The detectors there are: one line each."""

from __future__ import annotations

from importlib import import_module

from irforge.errors import UsageError
from irforge.train.detectors.base import Detector

DETECTORS = {
    "itd": "irforge.train.detectors.itd.deploy:ITD",
    "mshnet": "irforge.train.detectors.mshnet.deploy:MSHNET",
    "oscar": "irforge.train.detectors.oscar.deploy:OSCAR",
}


def find_detector(name: str) -> Detector:
    """The detector of a name.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
    """
    try:
        module, attribute = DETECTORS[name].split(":")
    except KeyError:
        raise UsageError(f"there is no detector '{name}'", f"Detectors: {', '.join(DETECTORS)}") from None
    found: Detector = getattr(import_module(module), attribute)
    return found
