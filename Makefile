# Every target first installs its dependencies into .venv, once. GNU make 3.81 (macOS) is enough.
#   PYTHON=python3.12            the interpreter of .venv
#   PIP_ARGS="--index-url ..."   another package index, for example one with CPU builds of torch
#   ARGS="requests=100"          more overrides for `sweep`, more options for `test`

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
MLFLOW_PORT ?= 5000

BIN := .venv/bin
PIP = @echo "installing $@ (the first time takes minutes)"; $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt
PROTOC := $(BIN)/python -m grpc_tools.protoc -I .
PROTO := crossbench/serving/inference.proto
PINS := pyproject.toml constraints.txt

# Two backends that this machine has
ifeq ($(shell uname -s),Darwin)
BASE := .[mlx]
PLUS := ,mlx
TWO_BACKENDS := backend=mps,mlx
else
BASE := .
PLUS :=
TWO_BACKENDS := $(shell command -v $${CXX:-g++} >/dev/null 2>&1 && echo backend=pytorch,compiled || echo backend=pytorch quant=fp32,bf16)
endif

.PHONY: help sweep suite test test-full lint audit ui notebooks proto metrics-doc result-schema peers aiperf loadgen clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

sweep: .venv/.base ## a 2 x 2 sweep: two backends that this machine has, batch=32,96
	$(BIN)/python -m crossbench -m $(TWO_BACKENDS) batch=32,96 $(ARGS)

suite: .venv/.base ## all studies that this machine can run, with one report; ARGS="max_seconds=3" shortens it
	$(BIN)/python -m crossbench.suite $(ARGS)

test: .venv/.test ## all tests except the slow ones (over half a minute)
	$(BIN)/python -m pytest -m "not slow" -n 2 $(ARGS)

test-full: .venv/.full ## all tests, with every optional engine of this platform
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev ## ruff, mypy, import layers, bandit, and a check of the generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit -q -c pyproject.toml -r crossbench hydra_plugins
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" --grpc_python_out="$$fresh" $(PROTO) && \
	for file in inference_pb2.py inference_pb2.pyi inference_pb2_grpc.py; do \
		diff -q "$$fresh/crossbench/serving/$$file" "crossbench/serving/$$file" >/dev/null || \
		{ echo "crossbench/serving/$$file does not match $(PROTO): run make proto"; exit 1; }; \
	done

audit: ## known vulnerabilities of the pinned versions (asks a public database, so it is no part of CI)
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" && \
	"$$tools/bin/python" -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) pip-audit && \
	"$$tools/bin/pip-audit" --no-deps --disable-pip -r constraints.txt

ui: .venv/.base ## the MLflow page for the runs in outputs/, at MLFLOW_PORT (5000)
	@mkdir -p outputs
	@$(BIN)/python -m crossbench.tracking $(MLFLOW_PORT)

notebooks: .venv/.notebooks ## JupyterLab on notebooks/, which read the results in outputs/
	$(BIN)/jupyter lab --notebook-dir notebooks

proto: .venv/.dev ## generate the gRPC code from inference.proto
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

metrics-doc: .venv/.base ## generate docs/metrics.md from the catalogue of metrics
	$(BIN)/python -m crossbench.report.metrics_doc > docs/metrics.md

result-schema: .venv/.base ## generate docs/result.schema.json from the types that write a result
	$(BIN)/python -m crossbench.report.result_schema > docs/result.schema.json

peers: .venv/.test .venv-peers/.done .venv-infinity/.done ## MODEL=DIR DATA=DIR: compare with sentence-transformers and Infinity
	@test -n "$(MODEL)" && test -n "$(DATA)" || { \
		echo "Give the folder of a cross-encoder and a folder with TREC files: make peers MODEL=DIR DATA=DIR"; exit 1; }
	mkdir -p outputs
	test -d outputs/peers-exported || PYTHONPATH=. .venv-peers/bin/python benchmarks/export_peers.py \
		$(MODEL) $(DATA) outputs/peers-exported
	$(BIN)/python -m benchmarks.peers --model $(MODEL) --data $(DATA) --exported outputs/peers-exported \
		--peers-python .venv-peers/bin/python --infinity-python .venv-infinity/bin/python $(ARGS)

aiperf: .venv/.test .venv-aiperf/.done ## MODEL=DIR DATA=DIR: AIPerf beside our own driver, on one server
	@test -n "$(MODEL)" && test -n "$(DATA)" || { \
		echo "Give the folder of a model and a folder with TREC files: make aiperf MODEL=DIR DATA=DIR"; exit 1; }
	$(BIN)/python -m benchmarks.aiperf --aiperf .venv-aiperf/bin/aiperf backend=onnx quant=int8 \
		model=local model.path=$(MODEL) dataset=trec dataset.path=$(DATA) $(ARGS)

loadgen: .venv/.test .venv-loadgen/.done ## MODEL=DIR DATA=DIR: MLCommons LoadGen beside our own driver, on one server
	@test -n "$(MODEL)" && test -n "$(DATA)" || { \
		echo "Give the folder of a cross-encoder and a folder with TREC files: make loadgen MODEL=DIR DATA=DIR"; exit 1; }
	$(BIN)/python -m benchmarks.loadgen --python .venv-loadgen/bin/python backend=onnx quant=int8 \
		model=local model.path=$(MODEL) dataset=trec dataset.path=$(DATA) $(ARGS)

clean: ## remove .venv and caches, but not outputs/
	rm -rf .venv .venv-peers .venv-infinity .venv-aiperf .venv-loadgen build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find crossbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: packages are installed again only if pyproject.toml or constraints.txt has changed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "crossbench needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)."; \
		echo "Give another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear .venv

.venv/.base: $(PINS) | $(BIN)/python
	$(PIP) -e "$(BASE)"
	@touch $@

.venv/.test: $(PINS) | $(BIN)/python
	$(PIP) -e ".[test,openvino,onnx,optuna,cluster$(PLUS)]"
	@touch .venv/.base $@

.venv/.full: $(PINS) | $(BIN)/python
	$(PIP) -e ".[test,hub,openvino,onnx,mlx,optuna,cluster]"
	@touch .venv/.base .venv/.test $@

.venv/.notebooks: $(PINS) | $(BIN)/python
	$(PIP) -e ".[notebooks$(PLUS)]"
	@touch .venv/.base $@

.venv/.dev: $(PINS) | $(BIN)/python
	$(PIP) -e ".[dev$(PLUS)]"
	@touch .venv/.base $@

.venv/.ci: $(PINS) | $(BIN)/python
	$(PIP) -e ".[test,openvino,onnx,optuna,cluster,dev$(PLUS)]"
	@touch .venv/.base .venv/.test .venv/.dev $@

# The peers, at the versions that were measured, with the same torch as crossbench. optimum-onnx is
# installed separately, because pip cannot resolve it together with optimum-intel. torchvision, a
# dependency of optimum-intel that is not used here, is built for another torch and breaks transformers.
TORCH = $(shell grep '^torch==' constraints.txt)

.venv-peers/.done:
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet $(PIP_ARGS) $(TORCH)
	.venv-peers/bin/python -m pip install --quiet $(PIP_ARGS) $(TORCH) sentence-transformers==6.2.0 \
		"optimum-intel[openvino]" nncf
	.venv-peers/bin/python -m pip install --quiet $(PIP_ARGS) $(TORCH) "optimum-onnx[onnxruntime]"
	.venv-peers/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

.venv-infinity/.done:
	$(PYTHON) -m venv --clear .venv-infinity
	.venv-infinity/bin/python -m pip install --quiet $(PIP_ARGS) $(TORCH)
	.venv-infinity/bin/python -m pip install --quiet $(PIP_ARGS) $(TORCH) \
		"infinity-emb[server,torch,optimum]==0.0.77" "optimum<1.25" "transformers<4.50" "click<8.2" "pyarrow<24"
	@touch $@

.venv-aiperf/.done:
	$(PYTHON) -m venv --clear .venv-aiperf
	.venv-aiperf/bin/python -m pip install --quiet $(PIP_ARGS) aiperf==0.13.0
	@touch $@

.venv-loadgen/.done: constraints.txt
	$(PYTHON) -m venv --clear .venv-loadgen
	.venv-loadgen/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt mlcommons-loadgen==6.0.17 grpcio grpcio-reflection protobuf
	@touch $@
