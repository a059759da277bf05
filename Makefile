# The only list of commands: bare `make` prints it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
# HOST, PORT and DATA_DIR may be given to `make demo` and `make serve`; empty means the default.
HOST ?=
PORT ?=
DATA_DIR ?=
# Where `make train-default` keeps what it makes.
TRAIN_DIR ?= .train
# How much `make fuzz-api` and `make fuzz-decode` do.
CASES ?= 6000
FUZZ_SECONDS ?= 600
options = $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DATA_DIR),--data-dir $(DATA_DIR))
TORCH := torch==2.13.0
TORCH_INDEX := https://download.pytorch.org/whl/cpu
BIN := .venv/bin

.PHONY: help setup demo serve test chaos check fix bench train-smoke train-default screenshots openapi audit sbom
.PHONY: fuzz-api fuzz-decode images docs lock clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/dev.stamp ## the environment .venv with everything for work and tests

demo: .venv/runtime.stamp ## index and calibrate the bundled gallery, serve it, show the line to try
	@$(BIN)/lipsim demo $(options)

serve: .venv/runtime.stamp ## serve your own indexes (in data/, or DATA_DIR)
	@$(BIN)/python -m service $(options) || { status=$$?; [ $$status -eq 130 ] || exit $$status; }

test: .venv/dev.stamp ## the whole suite, but for chaos
	@# With bytecode kept: else each of some two hundred processes compiles what it imports.
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-n 3 --dist loadfile --no-loadscope-reorder tests --ignore=tests/chaos

chaos: .venv/dev.stamp ## real servers, killed, starved and lied to (ten minutes: docs/chaos.md)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos

check: .venv/dev.stamp ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: .venv/dev.stamp ## format, and repair what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz-api: .venv/dev.stamp ## CASES generated requests to a real server, each answer held to the OpenAPI document
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/integration/service/test_service_schema.py --cases $(CASES)

fuzz-decode: .fuzz/env.stamp ## damaged image files for FUZZ_SECONDS, guided by coverage; findings in .fuzz/findings
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests:tests/support .fuzz/env/bin/python -m fuzz.decode --seconds $(FUZZ_SECONDS)

bench: .venv/dev.stamp ## print every ratio, side by side in one run
	$(BIN)/python -m benchmarks

train-smoke: .venv/dev.stamp ## each step of training, evaluation and attack, small, on the bundled pictures
	@rm -rf .smoke
	$(BIN)/python -m model.train corpus .smoke/corpus --recipe none --source folder:examples/gallery --composites 0
	$(BIN)/python -m model.train teach .smoke/corpus .smoke/teacher --split train --size 96
	$(BIN)/python -m model.train distill --recipe wave-96 --data .smoke/corpus --embeddings .smoke/teacher \
		--steps 30 --batch-size 128 --set views=2 --set teacher_weight=0.1 --set validation_split= --set validate_every=0 --out .smoke/distilled
	$(BIN)/python -m model.train synthetic-2afc examples/gallery .smoke/triplets --triplets 60
	$(BIN)/python -m model.train finetune --data .smoke/triplets --from .smoke/distilled/best.safetensors \
		--recipe wave-96-triplets --steps 4 --out .smoke/finetuned
	$(BIN)/python -m model.evaluate all examples/gallery --triplets .smoke/triplets --limit 60 \
		--metric .smoke/finetuned/best.safetensors --metric raw --out .smoke/evaluation
	$(BIN)/python -m model.attack examples/gallery --metric .smoke/finetuned/best.safetensors --queries 8 \
		--steps 10 --restarts 1 --epsilon 0.5 --shortest-steps 20 --out .smoke/attack

train-default: .venv/dev.stamp ## the shipped checkpoint, from Debian's packages of pictures (half an hour: docs/training.md)
	test -e $(TRAIN_DIR)/corpus/corpus.json || $(BIN)/python -m model.train corpus $(TRAIN_DIR)/corpus
	$(BIN)/python -m model.train distill --recipe wave-96 --data $(TRAIN_DIR)/corpus --out $(TRAIN_DIR)/wave-96
	test -e $(TRAIN_DIR)/test-triplets || $(BIN)/python -m model.train synthetic-2afc $(TRAIN_DIR)/corpus $(TRAIN_DIR)/test-triplets --split test --triplets 3000
	$(BIN)/python -m model.evaluate all $(TRAIN_DIR)/corpus --triplets $(TRAIN_DIR)/test-triplets \
		--views wide --side 64 --metric $(TRAIN_DIR)/wave-96/best.safetensors --metric phash --metric blockmean16 \
		--hashes benchmarks/evaluation-set.sha256 --out $(TRAIN_DIR)/evaluation

screenshots: .venv/dev.stamp ## docs/screenshots, by the page's tests, of the demo's gallery (Chromium; minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/browser/test_page_screenshots.py --screenshots docs/screenshots

openapi: .venv/dev.stamp ## write docs/openapi.json from the code
	$(BIN)/python -m service openapi > docs/openapi.json

audit: .audit/stamp ## look every pin up among known vulnerabilities (2: could not; that is no audit)
	@.audit/bin/python .ci/audit.py

sbom: .audit/stamp ## write dist/sbom.json: what a CPU image is made of (CycloneDX)
	@mkdir -p dist
	{ cat requirements/runtime.txt; echo "$(TORCH)"; } | .audit/bin/cyclonedx-py requirements - \
		--pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json

images: ## build both container images without Docker, ask the CPU one a search (root, buildah; minutes)
	docker/images.sh

docs: .docs/env.stamp ## the docs as a site in .docs/site, links checked; open .docs/site/index.html
	NO_MKDOCS_2_WARNING=1 .docs/env/bin/mkdocs build -q
	@echo "the site: .docs/site; to read it with its search: python3 -m http.server -d .docs/site 8001"

lock: .venv/bin/python ## pin every dependency again (the newest versions that fit)
	$(BIN)/python -m pip install -q uv
	$(call compile,dev,--extra cpu --extra train --group dev --upgrade,$(no_torch))
	$(call compile,runtime,--extra cpu -c requirements/dev.txt,$(no_torch))
	$(call compile,train,--extra train -c requirements/dev.txt,$(no_torch))
	echo "$(TORCH)" | $(call compile,runtime-gpu,- --extra gpu -c requirements/dev.txt)
	$(BIN)/uv pip compile -q requirements/audit.in --upgrade $(lock_options) -o requirements/audit.txt
	$(BIN)/uv pip compile -q requirements/fuzz.in --upgrade $(lock_options) -o requirements/fuzz.txt
	$(BIN)/uv pip compile -q --group docs --upgrade $(lock_options) -o requirements/docs.txt

clean: ## remove the environment and the demo's index; your own, in data/, stay
	rm -rf .venv .audit .docs .fuzz/env .fuzz/env.stamp .demo .smoke .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Each lock file is for every Python from 3.11 on, with hashes. torch is left to the step below, but
# for GPUs: there the build with CUDA, and CUDA's own packages, are pinned like everything else.
lock_options := --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
no_torch := --override requirements/no-torch.override
compile = $(BIN)/uv pip compile -q pyproject.toml requirements/torch-needs.in $(2) $(3) $(lock_options) \
	-o requirements/$(1).txt

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python >= 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

# torch comes first and alone: the CPU build, 0.2 GB, instead of the CUDA build, several GB.
.venv/torch.stamp: .venv/bin/python Makefile
	$(BIN)/python -m pip install -q --no-deps --retries 1 $(TORCH) --extra-index-url $(TORCH_INDEX)
	@touch $@

.venv/runtime.stamp: .venv/torch.stamp requirements/runtime.txt pyproject.toml
	$(BIN)/python -m pip install -q --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import torch; torch.version.cuda and print("note: this torch is a CUDA build (" + torch.__version__ + "); the CPU build is smaller and enough here")'
	@touch $@

.venv/dev.stamp: .venv/runtime.stamp requirements/dev.txt
	$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.txt
	@touch $@

.audit/stamp: requirements/audit.txt
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install -q --require-hashes -r requirements/audit.txt
	@touch $@

.docs/env.stamp: requirements/docs.txt
	$(PYTHON) -m venv .docs/env
	.docs/env/bin/python -m pip install -q --require-hashes -r requirements/docs.txt
	@touch $@

# Beside the packages of .venv, which it borrows.
.fuzz/env.stamp: .venv/dev.stamp requirements/fuzz.txt
	$(BIN)/python -m venv .fuzz/env
	.fuzz/env/bin/python -m pip install -q --require-hashes -r requirements/fuzz.txt
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(\"" + sysconfig.get_path("purelib") + "\")")' \
		> "$$(.fuzz/env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	@touch $@
