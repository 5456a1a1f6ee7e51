# `make train` and `make test` are all that a fresh machine needs; plain `make` prints this list.
PYTHON ?= python3.11
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What quantize, export and firmware work on: any model.safetensors; the default is trained first when it is not there.
MODEL ?= outputs/default/model.safetensors
# A model that is given is not made: where its file is missing, the command itself says so.
DEFAULT_MODEL := $(if $(filter file,$(origin MODEL)),$(MODEL))

.DEFAULT_GOAL := help
.PHONY: help setup train sweep test test-slow test-docs test-all test-envs lint format bench bench-quality distill sets ships rooms cars cement predict quantize export firmware tensorboard notebooks docs clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(READY) ## make .venv with the locked versions

train: $(READY) ## the main job, on wells made by code: under 3 minutes of training on 2 cores (ARGS="key=value ...")
	$(BIN)/python -m wellseg.train $(ARGS)

sweep: $(READY) ## a small sweep over losses and widths (ARGS="...")
	$(BIN)/python -m wellseg.train -m model.thickness=4,8 loss=bce,bce_dice trainer.max_epochs=3 $(ARGS)

test: $(READY) ## the fast tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow' $(ARGS)

test-all: $(READY) ## all tests
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-slow: $(READY) ## the slow tests: processes, kills, sanitizers, whole runs
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow $(ARGS)

test-docs: $(READY) ## README, docs/get-started and examples executed in fresh clones, and the pages built
	$(BIN)/python -m pytest -n auto --dist load tests/test_documents.py $(ARGS)

test-envs: $(READY) ## the wheel in empty environments: locked without extras, newest and oldest versions in the bounds
	$(BIN)/python scripts/environments.py locked newest oldest $(ARGS)

lint: $(READY) ## ruff, mypy, and the count of what the type checker does not see
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/type_debt.py

format: $(READY) ## let ruff fix and wrap
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## the benchmarks of speed, half an hour; writes pages under benchmarks/
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.images

bench-quality: $(READY) ## train all models on the real wells and compare them: hours; finished runs are used again
	$(BIN)/python -m benchmarks.quality $(ARGS)

distill: $(READY) ## a teacher, its student and the student's twin without one, under 10 minutes on 2 cores; finished runs are used again
	$(BIN)/python scripts/distill.py $(ARGS)

sets: $(READY) ## ships, rooms, cars and cement, each on a set made by code: train, evaluate, export, predict, check; half an hour
	for set in airbus_1 stanford carvana carvana_1024 echocem; do $(BIN)/python -m scripts.image_set $$set $(ARGS) || exit 1; done

ships: $(READY) ## one of them (also: rooms, cars, cement)
	$(BIN)/python -m scripts.image_set airbus_1 $(ARGS)

rooms: $(READY)
	$(BIN)/python -m scripts.image_set stanford $(ARGS)

cars: $(READY)
	$(BIN)/python -m scripts.image_set carvana $(ARGS)

cement: $(READY)
	$(BIN)/python -m scripts.image_set echocem $(ARGS)

predict: $(READY) ## masks of wells (ARGS="artifact=FILE input=PATH output=DIR")
	$(BIN)/python -m wellseg.predict $(ARGS)

outputs/default/model.safetensors: | $(READY)
	$(BIN)/python -m wellseg.train hydra.run.dir=outputs/default

quantize: $(READY) $(DEFAULT_MODEL) ## a model in 4 bits with a report, 2 minutes (MODEL=FILE ARGS="quant=int8 ...")
	$(BIN)/python -m wellseg.quantize artifact=$(MODEL) $(if $(findstring quant=,$(ARGS)),,quant=int4) $(ARGS)

export: $(READY) $(DEFAULT_MODEL) ## a model as ONNX, checked against its own (MODEL=FILE ARGS="format=...")
	$(BIN)/python -m wellseg.export artifact=$(MODEL) $(ARGS)

firmware: $(READY) $(DEFAULT_MODEL) ## the smallest model that passes its gate as C, with the runtime, 6 minutes (MODEL=FILE)
	$(BIN)/python -m scripts.firmware $(MODEL) $(ARGS)

tensorboard: $(READY) ## dashboards of all runs below outputs/
	$(BIN)/tensorboard --logdir outputs --port 6006

notebooks: $(READY) ## execute the notebooks in place
	$(BIN)/python scripts/run_notebooks.py $(ARGS)

docs: $(READY) ## the documentation as HTML in build/docs, warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

clean: ## remove .venv and caches, not outputs/
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
