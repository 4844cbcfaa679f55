"""The two-stage detectors: Faster R-CNN on plain torch operators, and what GLMD-CA and RISF make of it by options."""
