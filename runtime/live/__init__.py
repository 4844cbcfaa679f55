"""The live page: a detector at work on a source, for people to watch in a browser and to steer from there."""
