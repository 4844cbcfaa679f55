"""Metrics of infrared small-target detection. No torch."""

from irforge.metrics.pixel import Match, PixelMetrics, PixelResult, match_targets, wilson_interval

__all__ = ["Match", "PixelMetrics", "PixelResult", "match_targets", "wilson_interval"]
