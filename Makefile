# Everything on a fresh machine with Python 3.11 or newer and make: `make demo`, `make test`.
# Run, and not only looked for: a name may be there and lead nowhere, as with pyenv.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	$$name $(NEW_ENOUGH) 2>/dev/null && { echo $$name; break; }; done)
need_python = @test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) 2>/dev/null || \
	{ echo "make: no Python 3.11 or newer was found: install one, or name it with  make PYTHON=/path/to/python" >&2; exit 1; }
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
STAMP  := $(VENV)/.installed

.PHONY: setup demo test test-slow test-device test-transformers-serve test-tinker tinker-env test-vllm vllm-env test-ray check format
.PHONY: bench bench-engine coverage bench-servers docs pictures microworld clean

setup: $(STAMP)

# torch first, by itself: constraints.txt names the build that was tested, and nothing then pulls another one.
$(STAMP): pyproject.toml constraints.txt
	$(need_python)
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV): the largest part, minutes on a slow line ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@echo "installing windowshift and what it needs into $(VENV): some minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,hub,export,code,serve,server,openai,keyring,tinker,inspect,ray,slurm,wandb,trackio,docs,dev]'
	touch $@

# On a terminal: the grid fills live in the TUI. Without one: a progress line, then the report.
demo: setup
	$(BIN)/windowshift demo --workspace $(DEMO)

# One worker more than there are cores: many of these tests wait, for a server, a worker process or a screen.
test: setup
	$(BIN)/python -m pytest -m 'not slow and not tinker and not vllm and not ray' --dist loadfile \
	  -n $$($(BIN)/python -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')

test-slow: setup
	$(BIN)/python -m pytest -m 'slow and not tinker and not vllm and not ray'

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
	$(need_python)
	$(PYTHON) -m venv $(TINKER_VENV)
	@echo "installing torch into $(TINKER_VENV): minutes on a slow line ..."
	$(TINKER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@echo "installing SkyRL into $(TINKER_VENV): some minutes ..."
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
	$(need_python)
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing torch into $(VLLM_VENV): minutes on a slow line ..."
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/vllm_requirements.txt torch
	@echo "installing vLLM into $(VLLM_VENV): some minutes ..."
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/vllm_requirements.txt
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: setup vllm-env
	$(BIN)/python -m pytest -m vllm

# Clusters of several nodes on loopback, some of which are killed: about three minutes.
test-ray: setup
	$(BIN)/python -m pytest -m ray

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# How often 95 % intervals hold the truth, in simulated grids: some minutes. What it prints stands in docs/validity.md.
coverage: setup
	$(BIN)/python -m bench.coverage

bench: setup
	$(BIN)/python -m bench

# Many adapters on one base, beside other ways to train them: ratios of one run. With a GPU, both.
# glibc keeps memory as in the worker processes of backend local.
bench-engine: setup
	MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456 $(BIN)/python -m bench --only engine

# What needs a server in an environment of its own.
bench-servers: setup tinker-env vllm-env
	WINDOWSHIFT_TINKER_ENV=$(CURDIR)/$(TINKER_VENV) $(BIN)/python -m bench --only tinker --only vllm

# A cluster of simulated nodes on this machine. What it prints stands in docs/scale.md.
bench-ray: setup
	$(BIN)/python -m bench --only ray

# The site, into build/site: pages of docs/, and the reference, generated from the models and docstrings.
docs: setup
	$(BIN)/python -m mkdocs build --strict

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
