"""Methods from before deep learning: no weights, no training, and the same path as every other detector.

LCM, MPCM and WLDM are a few filters and export to ONNX. FKRW, IPI, NIPPS and RIPT solve a problem for each frame, with
as many steps as it takes: they run on the CPU alone.
"""
