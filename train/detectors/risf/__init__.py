"""RISF: DeFRCN's detector, a loss for what is not annotated, and scores corrected by language."""
