# SPDX-License-Identifier: Apache-2.0
import cases
import compare
import numpy as np
import oracle
import pytest

import jax_mla


@pytest.mark.parametrize("dtypes", [name for name in cases.DTYPES if name != "f32"])
@pytest.mark.parametrize(("heads", "q_len", "page_size"), [(3, 1, 16), (20, 4, 1), (16, 2, 64)])
def test_against_float64(heads: int, q_len: int, page_size: int, dtypes: str) -> None:
    case = cases.make(heads, q_len, page_size, dtypes)
    result = jax_mla.reference(*case.operands, **case.options, return_residuals=True)
    compare.assert_close(*result, *oracle.decode(case))


def test_in_float64_it_is_the_oracle(x64: None) -> None:
    case = cases.make(q_len=2, dtypes="f32")
    out, lse = jax_mla.reference(*case.operands, **case.options, return_residuals=True)
    expected_out, expected_lse = oracle.decode(case)
    np.testing.assert_allclose(out, expected_out, rtol=1e-6, atol=1e-7)  # rounded to float32
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6)


def test_takes_the_arguments_of_decode() -> None:
    case = cases.make()
    chosen = {"num_kv_splits": 4, "implementation": "xla", "head_plan": "pad"}
    out = jax_mla.reference(*case.operands, **case.options, **chosen)
    plain = jax_mla.reference(*case.operands, **case.options)
    np.testing.assert_array_equal(out, plain)
