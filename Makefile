# `make demo` runs the main job, `make test` the tests; both set up .venv first. Nothing outside this folder is written.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.irforge-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: setup native demo test test-full lint clean

setup: $(STAMP)

$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[train,video,rtx,measure,rescore,live,track,test]'
	@# By itself, because it asks for another build of OpenCV than the headless one.
	$(BIN)/python -m pip install --quiet --no-compile --no-deps 'trackers>=2.6,<3'
	@# Triton's schemas, for a test; its dependencies would ask for an older protobuf.
	$(BIN)/python -m pip install --quiet --no-compile --no-deps tritonclient
	touch $@

demo: setup
	$(BIN)/python -m irforge.demo --out out

# Kernels, TensorRT plugins and ONNX Runtime operators, with their tests; what is missing here is fetched into build/.
native: setup
	PYTHON=$(BIN)/python plugins/build.sh build

test: native
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-full: native
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p irforge

clean:
	rm -rf out runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
