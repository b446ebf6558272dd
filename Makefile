# SPDX-License-Identifier: Apache-2.0
# Everything runs from a virtual environment of its own; nothing has to be installed before.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc -type f)

ARCH ?= gfx942
# Of the tests on the emulated ROCm; test-full runs all.
MARKS ?= not full

.PHONY: demo test test-cpu test-rocm-emulated rocm-shell test-full test-oldest test-hf lint bench clean

demo: $(VENV)/ready
	$(BIN)/python examples/demo_checkpoint.py build/demo-checkpoint
	$(BIN)/python examples/generate.py build/demo-checkpoint --max-new-tokens 64 --check \
	  --prompt "Multi-head latent attention keeps one small row for every token it has read."

# The plugin first: with it there is more to test and to build.
test: $(VENV)/ready
	-@$(MAKE) --no-print-directory $(VENV)/rocm
	@$(MAKE) --no-print-directory test-cpu test-rocm-emulated

test-cpu: $(VENV)/ready
	$(BIN)/python -m pytest -n auto -m "not full"

# JAX's own ROCm plugin on emulated GPUs.
test-rocm-emulated: $(VENV)/ready
	@if $(MAKE) --no-print-directory $(VENV)/rocm; then \
	  $(BIN)/python -m pytest -n auto -m "$(MARKS)" --platform rocm-emulated:gfx942 && \
	  $(BIN)/python -m pytest -n auto -m "$(MARKS)" --platform rocm-emulated:gfx950; \
	else \
	  echo "SKIPPED: the tests on the emulated ROCm, as this JAX's ROCm plugin cannot be had here"; \
	fi

# A Python prompt on four emulated MI300X, or with ARCH=gfx950 MI355X.
rocm-shell: $(VENV)/rocm
	PYTHONPATH=tests $(BIN)/python -m emulator.environment $(ARCH)

test-full: $(VENV)/rocm
	$(BIN)/python -m pytest -n auto
	@$(MAKE) --no-print-directory test-rocm-emulated MARKS=

# The oldest supported JAX, in an environment of its own. Neither the emulator depends on it nor do
# kernels that are launched without it.
DEVICE_TESTS := merge primitives expand plan_kernel pointers decode_kernel read conformance \
  stand_ins hopper
test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pytest -n auto -m "not full" \
	  --ignore-glob="tests/test_emulator_*" $(DEVICE_TESTS:%=--ignore=tests/test_%.py)

# The example's loader and paths against transformers, which needs PyTorch for the CPU.
test-hf: .venv-hf/ready
	.venv-hf/bin/python -m pytest -s tests/hf

lint: $(VENV)/ready
	$(BIN)/python -m pip install -q -e ".[lint]"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/python -m pip install -q -e ".[bench]"
	$(BIN)/python benchmarks/decode.py

$(VENV)/ready: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e ".[test]"
	touch $@

$(VENV)/rocm: $(VENV)/ready
	version=$$($(BIN)/python -c "import jax; print(jax.__version__)"); \
	$(BIN)/python -m pip install -q --no-deps \
	  jax-rocm7-plugin==$$version jax-rocm7-pjrt==$$version
	touch $@

.venv-oldest/ready: $(SOURCES)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q -e ".[test]" jax==0.7.2 jaxlib==0.7.2
	touch $@

.venv-hf/ready: $(SOURCES)
	$(PYTHON) -m venv .venv-hf
	.venv-hf/bin/python -m pip install -q -e ".[test]" torch==2.13.0 transformers==5.23.0
	touch $@

clean:
	rm -rf build .venv .venv-oldest .venv-hf
