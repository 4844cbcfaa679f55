"""Options that commands of several stages share."""

from __future__ import annotations

from typing import Annotated

import typer

Tile = Annotated[
    int | None,
    typer.Option(min=0, metavar="OVERLAP", help="Cut frames into tiles of the model's size that overlap: 32, say."),
]
