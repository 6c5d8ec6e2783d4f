# Everything on a fresh machine with Python 3.11 and make: `make demo`, `make test`.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
STAMP  := $(VENV)/.installed

.PHONY: setup demo test test-slow test-device test-transformers-serve test-tinker tinker-env test-vllm vllm-env check format
.PHONY: bench bench-servers pictures microworld clean

setup: $(STAMP)

# torch first, by itself: constraints.txt names the build that was tested, and nothing then pulls another one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,hub,export,code,serve,server,openai,keyring,tinker,dev]'
	touch $@

# On a terminal: the grid fills live in the TUI. Without one: a progress line, then the report.
demo: setup
	$(BIN)/windowshift demo --workspace $(DEMO)

test: setup
	$(BIN)/python -m pytest -m 'not slow and not tinker and not vllm' -n auto --maxprocesses 4 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m 'slow and not tinker and not vllm'

# Backend openai against a server that nobody here wrote; part of the slow suite once fastapi is there.
test-transformers-serve: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt fastapi
	$(BIN)/python -m pytest -m slow tests/backends/test_openai_transformers.py

# Backend local on an accelerator: a summary, in minutes. Needs torch, transformers and PEFT; steering needs nnsight.
DEVICE ?= cuda

test-device: setup
	$(BIN)/python -m tests.device $(DEVICE)

# SkyRL, the server that backend tinker is tested against, in an environment of its own (2.2 GB, a few minutes).
TINKER_VENV ?= .venv-skyrl
TINKER_STAMP := $(TINKER_VENV)/.installed

tinker-env: $(TINKER_STAMP)

$(TINKER_STAMP): tests/tinker_server/requirements.txt
	$(PYTHON) -m venv $(TINKER_VENV)
	$(TINKER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(TINKER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/tinker_server/requirements.txt
	touch $@

test-tinker: setup tinker-env
	WINDOWSHIFT_TINKER_ENV=$(CURDIR)/$(TINKER_VENV) $(BIN)/python -m pytest -m tinker tests/backends/test_tinker_contract.py tests/backends/test_tinker_training.py tests/backends/test_tinker_grid.py

# vLLM lives in an environment of its own: its CPU build and its pins are not those of windowshift. torchvision and its
# kin are asked for by vLLM, not needed, and not there for every torch.
VLLM_VENV ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed

vllm-env: $(VLLM_STAMP)

$(VLLM_STAMP): tests/vllm_requirements.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/vllm_requirements.txt torch
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/vllm_requirements.txt
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: setup vllm-env
	$(BIN)/python -m pytest -m vllm

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m bench

# What needs a server in an environment of its own.
bench-servers: setup tinker-env vllm-env
	WINDOWSHIFT_TINKER_ENV=$(CURDIR)/$(TINKER_VENV) $(BIN)/python -m bench --only tinker --only vllm

# The pictures in the README, from a finished demo.
pictures: setup
	test -f $(DEMO)/windowshift.db || $(BIN)/windowshift demo --headless --workspace $(DEMO)
	$(BIN)/python -m bench.pictures $(DEMO) demo docs
	$(BIN)/windowshift compare demo --workspace $(DEMO) --picture docs/arms.svg > /dev/null

# The embedded model, anew, bit for bit on one machine.
microworld: setup
	$(BIN)/windowshift microworld --out assets/microworld

clean:
	rm -rf $(VENV) $(TINKER_VENV) $(VLLM_VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
