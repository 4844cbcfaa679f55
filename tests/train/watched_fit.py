"""`train/fit.py` as it is, which leaves the weights of each process in the folder WATCHED: for torchrun."""

import os
import runpy
from pathlib import Path
from typing import Any

import torch

from irforge.train import run

after_epoch = run.Keeper.on_train_epoch_end


def note(self: run.Keeper, trainer: Any, module: Any) -> None:
    after_epoch(self, trainer, module)
    folder = Path(os.environ["WATCHED"])
    torch.save(module.state_dict(), folder / f"epoch{trainer.current_epoch}-process{trainer.global_rank}.pt")


if __name__ == "__main__":
    run.Keeper.on_train_epoch_end = note  # type: ignore[method-assign]
    runpy.run_path(str(Path(run.__file__).with_name("fit.py")), run_name="__main__")
