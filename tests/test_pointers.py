# SPDX-License-Identifier: Apache-2.0
"""The pointers kernel: addresses of the plan's lists, emulated and on an NVIDIA GPU."""

from collections.abc import Mapping

import numpy as np
import pytest
from gpu import DEVICES, Launch, pack, run_on


@pytest.mark.parametrize("device", DEVICES)
def test_the_pair(device: str) -> None:
    arrays = {
        "work_indptr": np.zeros(2, np.int32),
        "work_info": np.zeros(8, np.int32),
        "pair": np.full(4, 0xABCD, np.uint64),  # the last two are a guard
    }
    for name in ("work_indptr", "work_info"):
        arrays[name].flags.writeable = False
    addresses: dict[str, int] = {}

    def arguments(at: Mapping[str, int]) -> bytes:
        addresses.update(at)
        return pack([("P", at[name]) for name in arrays])

    run_on(device, Launch("pointers", "jax_mla_pointers", (1, 1, 1), 1, arrays, arguments))
    expected = [addresses["work_indptr"], addresses["work_info"], 0xABCD, 0xABCD]
    assert arrays["pair"].tolist() == expected
