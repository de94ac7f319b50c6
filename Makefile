# What people do with this project. Each target makes the environment first where it is missing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(abspath $(BIN)):$(PATH)

# The whole pipeline on generated images, offline: random initial weights, small networks, a few minutes. Images cost
# nothing: of each class 39 are held out, so that intervals on val and on gate are about 2 points to either side.
DEMO := \
	-S data.source=demo \
	-S data.val_fraction=0.3 \
	-S budget.epochs=5 \
	-S robustness.images=500 \
	-S models.vit_scratch.patch_size=8 \
	-S models.vit_scratch.embed_dim=96 \
	-S models.vit_scratch.depth=3 \
	-S models.vit_scratch.whitening=null \
	-S models.vit_transfer.weights=random \
	-S models.vit_transfer.backbone=test_vit \
	-S models.vit_transfer.image_size=64 \
	-S models.vit_transfer.lr=0.001 \
	-S models.mobilenet_transfer.weights=random \
	-S models.mobilenet_transfer.variant=small \
	-S models.mobilenet_transfer.image_size=32 \
	-S models.mobilenet_transfer.lr=0.003

# What the pipeline writes into reports/: the rest there was measured on CIFAR-100, by tools.
MADE := claims.md comparison.json comparison.md metrics near_duplicates.json near_duplicates.png plots \
	registered_model.json robustness.json tables

# What `make sweep` tries of one model: every value with every other, in DVC's syntax. These nine trainings take half an
# hour on 2 cores with bfloat16, more than an hour without. Others, two at a time:
#   make sweep MODEL=vit_transfer SWEEP="-S 'models.vit_transfer.lr=0.0001,0.0002,0.0004'" JOBS=2
MODEL := vit_scratch
SWEEP := \
	-S 'models.$(MODEL).muon_lr=0.001,0.002,0.004' \
	-S 'models.$(MODEL).adamw_lr=0.0005,0.001,0.002'
JOBS := 1
# Of the experiments: NAME-1, NAME-2 ...
NAME := sweep-$(shell date +%m%d-%H%M%S)

.PHONY: help env serve-env dev demo repro sweep study register rollback app serve ui bench screenshots test lint format clean git browser

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 13

env: $(READY) ## the environment, in .venv

$(READY): requirements.txt requirements-serve.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed (TensorFlow knows no newer one), $(PYTHON) is $$($(PYTHON) -V): \
	make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt -c constraints.txt
	@touch $@

SERVE := $(VENV)-serve

# Without torch and TensorFlow: what it takes to answer, not to train.
serve-env: $(SERVE)/.ready ## the light environment for app, command line and HTTP server, in .venv-serve

$(SERVE)/.ready: requirements-serve.txt constraints.txt
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/pip install -r requirements-serve.txt -c constraints.txt
	@touch $@

$(SERVE)/.ready-dev: $(SERVE)/.ready requirements-serve-dev.txt
	$(SERVE)/bin/pip install -r requirements-serve-dev.txt -c constraints.txt
	@touch $@

dev: $(VENV)/.ready-dev ## what working on the project takes, too

$(VENV)/.ready-dev: $(READY) requirements-dev.txt requirements-serve-dev.txt
	$(BIN)/pip install -r requirements-dev.txt -c constraints.txt
	@touch $@

git:
	@git rev-parse --verify -q HEAD >/dev/null || { echo "DVC needs a git repository with a commit, and this folder is none. \
	Clone the project with git; or, in an unpacked ZIP: git init && git add -A && git commit -m 'Start'"; exit 1; }

demo: git $(READY) ## the whole pipeline on generated images, offline, in minutes
	@dvc exp remove -q demo 2>/dev/null || true
	@start=$$(date +%s) && dvc exp run --temp --name demo $(DEMO) \
		&& rm -rf demo_reports && dvc get -q . reports --rev demo -o demo_reports \
		&& (cd demo_reports && ls | grep -vxFf <(printf '%s\n' $(MADE)) | xargs -r rm -rf --) \
		&& python -m stages.tools.demo demo_reports $$(($$(date +%s) - start))
	@echo
	@echo "The demo model is registered as demo-classifier; its reports are in demo_reports/ (start with comparison.md)."
	@echo "  make app     classify an image in the browser"
	@echo "  make ui      see the runs in MLflow"

repro: git $(READY) ## the real thing: download, train, compare, register what is out of date
	dvc repro

# The images first, or each experiment would fetch them for itself; unless the sweep chooses others.
sweep: git $(READY) ## a grid of settings of one model, queued; table and figure in sweep/
	@python -m stages.tools.sweep $(MODEL)
	$(if $(findstring data.,$(SWEEP)),,dvc repro prepare)
	dvc exp run --queue --name $(NAME) $(SWEEP) evaluate@$(MODEL)
	@python -m stages.tools.sweep $(MODEL) $(NAME) --jobs $(JOBS)

# Trainings in copies of the repository lack what git ignores: COPY names such files, e.g. weights in data/external.
COPY :=
SEEDS := 1
study: git $(READY) ## what reports/claims.md rests on, and equal minutes for all: small trainings, two hours; reports/studies/
	dvc repro prepare
	python -m stages.tools.study $(addprefix --copy ,$(COPY)) --seeds $(SEEDS) $(STUDIES)
	dvc repro compare

register: git $(READY) ## register the trained models again, in an MLflow store that lost them or in another one
	dvc repro --force --single-item register

# TO=3: to that version instead; MODEL_NAME=demo-classifier: of that registered model.
rollback: $(READY) ## make the previous champion champion again
	@python -m stages.tools.rollback $(MODEL_NAME) $(if $(TO),--to $(TO))

app: $(READY) ## the Streamlit app
	streamlit run gui/app.py

# MODEL has another meaning, and a default, for `make sweep`.
PORT := 5001
serve: $(READY) ## the champion over HTTP, http://127.0.0.1:5001; another model: MODEL=NAME@ALIAS, PORT=5002
	python -m gui.server --port $(PORT) $(if $(findstring command,$(origin MODEL)),--model $(MODEL))

ui: $(READY) ## the MLflow pages
	mlflow ui

bench: git $(READY) ## training against a baseline, and predictions, in an hour: reports/benchmark.md, time_to_accuracy.md, serving.md
	dvc repro prepare
	python -m stages.tools.bench

screenshots: dev browser ## the app's pages for the README, by the champion of the store in use: docs/
	python -m tests.gui.screenshots docs

# Those of gui/ in the light environment, which proves that it is enough.
TEST := -m pytest -n logical --maxprocesses 4 --dist loadgroup
test: git dev $(SERVE)/.ready-dev browser ## all tests, the slow ones too (installs Chromium on Debian if it may)
	$(SERVE)/bin/python $(TEST) tests/gui tests/inference
	python $(TEST) --ignore tests/gui --ignore tests/inference

browser: # Chromium for the tests in a real browser
	@command -v chromium chromium-browser google-chrome >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && apt-get install -qy chromium; } \
		|| { command -v sudo >/dev/null && command -v apt-get >/dev/null && sudo -n apt-get update -q && sudo -n apt-get install -qy chromium; } \
		|| echo "No Chromium found and none could be installed: the tests in a real browser will be skipped."

lint: dev ## style, types and layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo --no-cache

format: dev ## what ruff can mend by itself
	ruff check --fix .
	ruff format .

clean: ## caches, scratch and the environment; data, models and runs stay
	rm -rf $(VENV) $(SERVE) .pytest_cache .mypy_cache .ruff_cache data/scratch demo_reports sweep
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
