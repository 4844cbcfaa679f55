"""GLMD-CA as the stages see it; its defaults are those of the published few-shot stage.

A recipe of the base stage sets `network: {rpn_gradient: 0, roi_gradient: 0.75, freeze_res5: false, class_dropout: 0}`
and `loss: {classification: ce, objectness: bce}`. The authors' settings say 0 for `rpn_gradient` in the few-shot stage
too, and their code then takes `roi_gradient` for it.
"""

from __future__ import annotations

from irforge.train.detectors.twostage.deploy import TwoStageDetector

GLMD_CA = TwoStageDetector(
    "glmd-ca",
    "GLMD-CA (Wan et al., 2025)",
    network={
        "depth": 101,
        "pyramid": False,
        "stride_in_1x1": True,
        "freeze_at": 3,
        "freeze_res5": True,
        "neck": True,
        "affine": True,
        "decouple": True,
        "rpn_gradient": 0.01,
        "roi_gradient": 0.01,
        "class_dropout": 0.8,
    },
    losses={"classification": "ca", "objectness": "ca"},
    mean=93.5781,
    std=1.0,
    size=(800, 1216),
)
