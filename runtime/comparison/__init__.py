"""Different detectors side by side: each under its own contract, all on the same frames, judged by the same rules."""
