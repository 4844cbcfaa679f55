"""FixedRoiAlign: a map averaged over the bins of boxes (Mask R-CNN's, aligned), with as many samples in every bin.

ONNX's own RoiAlign needs NVIDIA's plugin library, takes boxes in the map's type and a list of whose box is whose. Its
name is taken: ONNX's reference evaluator and NVIDIA's parser know operators by name, whatever their domain.
"""

from __future__ import annotations

import onnx

from irforge.ops.base import CustomOp, set_output, sides


def _infer(context: onnx.shape_inference.InferenceContext) -> None:
    maps, boxes = sides(context, 0), sides(context, 1)
    if maps is None or boxes is None:
        set_output(context, None)
        return
    bins, every = (int(context.get_attribute(name).i) for name in ("bins", "every"))
    count, side = onnx.TensorShapeProto.Dimension(), onnx.TensorShapeProto.Dimension()
    if all(axis.HasField("dim_value") for axis in boxes[:2]):
        count.dim_value = boxes[0].dim_value * boxes[1].dim_value
    side.dim_value = -(-bins // every)
    set_output(context, [count, maps[1], side, side])


ROI_ALIGN = CustomOp(
    name="FixedRoiAlign",
    summary="y = x averaged over bins 0, every, 2 every, ... of bins x bins in each box, by sampling x sampling"
    " bilinear samples a bin at box * scale - 0.5;"
    " x is N x C x H x W, boxes N x K x 4 (x0, y0, x1, y1), y (N K) x C x B x B",
    inputs=("x", "boxes"),
    output="y",
    wide_inputs=("boxes",),
    attributes={"scale": float, "bins": int, "every": int, "sampling": int},
    body="""
    scale = Constant <value_float: float = @scale> ()
    half = Constant <value_float = 0.5> ()
    one = Constant <value_float = 1.0> ()
    two = Constant <value_float = 2.0> ()
    bins = Constant <value_int: int = @bins> ()
    every = Constant <value_int: int = @every> ()
    sampling = Constant <value_int: int = @sampling> ()
    zero_step = Constant <value_int = 0> ()
    one_step = Constant <value_int = 1> ()
    same = Constant <value_ints: ints = [0]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    pair = Constant <value_ints: ints = [2]> ()
    first = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [3]> ()
    behind = Constant <value_ints: ints = [4]> ()
    swapped = Constant <value_ints: ints = [1, 0]> ()
    samples_of_a_bin = Constant <value_ints: ints = [4, 6]> ()

    wide_bins = Cast <to = 1> (bins)
    wide_sampling = Cast <to = 1> (sampling)
    sample = Range (zero_step, sampling, one_step)
    wide_sample = Cast <to = 1> (sample)
    sample_middle = Add (wide_sample, half)
    sample_offset = Div (sample_middle, wide_sampling)
    bin = Range (zero_step, bins, every)
    wide_bin = Cast <to = 1> (bin)
    bin_column = Unsqueeze (wide_bin, first)
    offsets = Add (bin_column, sample_offset)
    offset = Reshape (offsets, rest)

    low, high = Split <axis = 2, num_outputs = 2> (boxes)
    extent = Sub (high, low)
    cells = Mul (extent, scale)
    bin_size = Div (cells, wide_bins)
    start = Mul (low, scale)
    start_column = Unsqueeze (start, last)
    size_column = Unsqueeze (bin_size, last)
    walked = Mul (size_column, offset)
    place = Add (start_column, walked)

    height_width = Shape <start = 2> (x)
    width_height = Gather (height_width, swapped)
    wide_sides = Cast <to = 1> (width_height)
    side_column = Unsqueeze (wide_sides, first)
    share = Div (place, side_column)
    doubled = Mul (share, two)
    point = Sub (doubled, one)
    across, down_row = Split <axis = 2, num_outputs = 2> (point)
    down = Transpose <perm = [0, 1, 3, 2]> (down_row)
    across_shape = Shape (across)
    down_shape = Shape (down)
    full_across = Expand (across, down_shape)
    full_down = Expand (down, across_shape)
    grid_x = Unsqueeze (full_across, behind)
    grid_y = Unsqueeze (full_down, behind)
    grids = Concat <axis = 4> (grid_x, grid_y)
    points = Shape (offset)
    grid_shape = Concat <axis = 0> (same, rest, points, pair)
    grid = Reshape (grids, grid_shape)

    wide_x = Cast <to = 1> (x)
    sampled = GridSample <padding_mode = "border"> (wide_x, grid)
    side = Shape (bin)
    per_side = Shape (sample)
    channels = Shape <start = 1, end = 2> (x)
    split_shape = Concat <axis = 0> (same, same, rest, side, per_side, side, per_side)
    split = Reshape (sampled, split_shape)
    means = ReduceMean <keepdims = 0> (split, samples_of_a_bin)
    by_box = Transpose <perm = [0, 2, 1, 3, 4]> (means)
    result_shape = Concat <axis = 0> (rest, channels, side, side)
    result = Reshape (by_box, result_shape)
    y = CastLike (result, x)
    """,
    infer=_infer,
)
