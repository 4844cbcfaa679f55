"""The detectors there are: one line each."""

from __future__ import annotations

from importlib import import_module

from irforge.errors import UsageError
from irforge.train.detectors.base import Detector

# Weights without a contract are the first one's that knows them: of two-stage detectors the simpler ones come first.
DETECTORS = {
    "faster-rcnn": "irforge.train.detectors.twostage.deploy:FASTER_RCNN",
    "risf": "irforge.train.detectors.risf.deploy:RISF",
    "glmd-ca": "irforge.train.detectors.glmd.deploy:GLMD_CA",
    "itd": "irforge.train.detectors.itd.deploy:ITD",
    "mshnet": "irforge.train.detectors.mshnet.deploy:MSHNET",
    "acm": "irforge.train.detectors.acm.deploy:ACM",
    "alcnet": "irforge.train.detectors.alcnet.deploy:ALCNET",
    "dna-net": "irforge.train.detectors.dnanet.deploy:DNANET",
    "fcos-rfla": "irforge.train.detectors.fcos.deploy:FCOS_RFLA",
    "centernet": "irforge.train.detectors.centernet.deploy:CENTERNET",
    "oscar": "irforge.train.detectors.oscar.deploy:OSCAR",
    "lcm": "irforge.train.detectors.classical.deploy:LCM",
    "mpcm": "irforge.train.detectors.classical.deploy:MPCM",
    "wldm": "irforge.train.detectors.classical.deploy:WLDM",
    "fkrw": "irforge.train.detectors.classical.deploy:FKRW",
    "ipi": "irforge.train.detectors.classical.deploy:IPI",
    "nipps": "irforge.train.detectors.classical.deploy:NIPPS",
    "ript": "irforge.train.detectors.classical.deploy:RIPT",
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
