"""Metrics of infrared small-target detection. No torch."""

from irforge.metrics.alarms import AlarmCount, AlarmRate
from irforge.metrics.boxes import (
    SIZE_BUCKETS,
    BoxMatch,
    BoxMetrics,
    BoxResult,
    Rates,
    SizeBucket,
    best_threshold,
    match_boxes,
)
from irforge.metrics.nocoap import LocMetrics, NocoMetrics, NocoVariant, PointResult, points_from_map
from irforge.metrics.pixel import Match, PixelMetrics, PixelResult, match_targets, wilson_interval

__all__ = [
    "SIZE_BUCKETS",
    "AlarmCount",
    "AlarmRate",
    "BoxMatch",
    "BoxMetrics",
    "BoxResult",
    "LocMetrics",
    "Match",
    "NocoMetrics",
    "NocoVariant",
    "PixelMetrics",
    "PixelResult",
    "PointResult",
    "Rates",
    "SizeBucket",
    "best_threshold",
    "match_boxes",
    "match_targets",
    "points_from_map",
    "wilson_interval",
]
