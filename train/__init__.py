"""Training: detectors, losses, data and checkpoints.

What the other stages use:

    from irforge.train.checkpoint import load_deployable

    deployable, contract = load_deployable("best.safetensors")      # .pkl / .pt / .pth too, with trust=True

`load_deployable(path, *, trust=False) -> tuple[nn.Module, Contract]`. The module is in eval mode, float32, on the CPU;
`deployable(frames)` takes uint8 N x 1 x H x W (float32 raw counts where `contract.input.door` says so), H and W
multiples of `deployable.stride`, and returns the tensors of `contract.output.tensors` in that order (a single Tensor
when there is one): for masks N x 1 x H x W float32 probabilities.
"""
