// The matrix kernels for one type of operands.
// Included once per instruction set, inside its namespace.

template <typename Math>
constexpr MatmulKernels make_matmul_kernels() {
  return {.per_lane = Math::kPerLane,
          .pack = pack_block<Math>,
          .count_scratch = count_scratch<Math>,
          .attend = attend_windows<Math>,
          .unpack_tile = unpack_tile<Math>,
          .unpack_blocks = unpack_blocks<Math>,
          .pack_weights = pack_weights<Math>,
          .multiply_panel = multiply_panel_rows<Math>};
}
