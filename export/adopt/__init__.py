"""Somebody else's detector as a deployable: what its graph means, its decode in the graph, its contract in the file."""
