"""How many layers go to the GPU: a pure function of sizes."""

from server.engine_config import EngineConfig

MARGIN = 0.9
"""Share of the free GPU memory that is used; compute buffers are part of what remains."""

COMPUTE_BYTES = 512 * 2**20
"""Set aside for compute buffers on each GPU."""

ALL = 9999
"""llama.cpp caps it."""


def choose_gpu_layers(
    config: EngineConfig,
    n_ctx: int,
    n_layer: int,
    size_bytes: int,
    bytes_per_cell: int,
    free: list[int],
) -> int:
    """Layers to offload: 0 without a GPU, else as configured, or as many as fit with their cells.

    `free`: bytes on each GPU; `size_bytes`: the weights; `bytes_per_cell`: K and V of one token
    over all layers. A layer's cells, for all slots of `n_ctx` tokens, go with it.
    """
    if not free:
        return 0
    if config.n_gpu_layers == "all":
        return ALL
    if config.n_gpu_layers != "auto":
        return config.n_gpu_layers
    usable = free[config.main_gpu : config.main_gpu + 1] if config.split_mode == "none" else free
    room = sum(max(0, int(n * MARGIN) - COMPUTE_BYTES) for n in usable)
    n_cells = config.n_cells or n_ctx * config.n_slots
    cells = n_cells * bytes_per_cell if config.kv_offload else 0
    # The output layer counts as one more.
    per_layer = (size_bytes + cells) / (n_layer + 1)
    return min(n_layer + 1, int(room / per_layer))
