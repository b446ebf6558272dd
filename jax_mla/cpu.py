# SPDX-License-Identifier: Apache-2.0
"""What the native code for CPUs (csrc/cpu) takes, and how it cuts a sequence."""

from jax_mla.call import Call, Unserved

# As csrc/cpu/kernel.h has them.
_BLOCK_TOKENS = 64
_COLUMNS = 64
_EXTRA_COLUMNS = 16

# Tokens of a part, where the caller does not fix the number of parts: enough work to be worth a
# thread, and few enough that every thread has some at batch 1.
_PART_TOKENS = 512
# Parts of a sequence at most: longer sequences have longer ones.
_MAX_SPLITS = 64
# Parts that can be under way at once, more than there are threads. Each call gets fresh memory for
# them, which the system maps page by page: room for all would cost a fifth of the time.
_PARTS_AT_ONCE = 256


def check(call: Call) -> None:
    """Refuses the widths that the vectors do not divide."""
    if call.latent_dim % _COLUMNS or call.width % (_COLUMNS // 2):
        raise Unserved(
            f"expected a latent_dim that is a multiple of {_COLUMNS} and a width that is one of "
            f"{_COLUMNS // 2}, got {call.latent_dim} and {call.width}"
        )


def cuts(call: Call, num_kv_splits: int | None) -> tuple[int, int]:
    """The parts that a sequence has at most, and the tokens that one has at least.

    A sequence of n tokens is cut into parts of max(n / parts, tokens), rounded up to blocks: that
    is up to its own length, so results depend neither on the batch nor on the threads.
    """
    if num_kv_splits is not None:
        return num_kv_splits, _BLOCK_TOKENS
    if not isinstance(call.capacity, int):
        return _MAX_SPLITS, _PART_TOKENS
    return max(1, min(_MAX_SPLITS, -(-call.capacity // _PART_TOKENS))), _PART_TOKENS


def workspace_bytes(call: Call, splits: int) -> int:
    """For float32 partial results of as many sequences as can be under way at once."""
    sequences = max(1, _PARTS_AT_ONCE // splits)
    if isinstance(call.batch, int):
        sequences = min(sequences, call.batch)
    rows = sequences * splits * call.q_len * call.heads
    return rows * (call.latent_dim + _EXTRA_COLUMNS) * 4
