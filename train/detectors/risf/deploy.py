"""RISF as the stages see it; its defaults are those of the published few-shot stage on COCO (on VOC `roi_gradient` is
0.001).

A recipe of the base stage sets `network: {roi_gradient: 0.75, freeze_res5: false, class_dropout: 0}` and
`loss: {classification: ce}`. A gray frame has one mean, where the published weights saw 103.53, 116.28 and 123.675.
"""

from __future__ import annotations

from irforge.train.detectors.twostage.deploy import TwoStageDetector

RISF = TwoStageDetector(
    "risf",
    "RISF (Jung et al., 2024)",
    network={
        "depth": 101,
        "pyramid": False,
        "stride_in_1x1": True,
        "freeze_at": 3,
        "freeze_res5": True,
        "affine": True,
        "rpn_gradient": 0.0,
        "roi_gradient": 0.01,
        "class_dropout": 0.8,
    },
    losses={"classification": "bnrl"},
    mean=114.495,
    std=1.0,
    size=(800, 1216),
)
