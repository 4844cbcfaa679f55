"""Packages: what other programs than irforge need to run a deployable. One file a target, one line in the registry."""
