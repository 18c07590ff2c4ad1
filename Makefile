# Everything a fresh machine with Rust, Python and Node needs. What is installed lands inside this folder.
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(abspath $(TARGET_DIR))/debug/datamesh
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
PYTHON ?= python3
WHEELS := $(abspath $(TARGET_DIR))/wheels

.PHONY: build demo test test-rust test-interop test-python docs-python wheel bench lint schema
build:
	$(CARGO) build --locked --workspace --all-targets

demo: build
	DATAMESH_BIN=$(BIN) examples/flights/demo

test: test-rust test-interop test-python

# The tests on an object store run a server from the Python packages; without them they would be skipped.
test-rust: export DATAMESH_TEST_PYTHON = $(abspath .venv)/bin/python
test-rust: export DATAMESH_TEST_TERRAFORM = 1
test-rust: .venv/ready tests/terraform/node_modules/ready
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --no-fail-fast
else
	$(CARGO) test --locked --workspace --no-fail-fast
endif

test-interop: build .venv/ready
	DATAMESH_BIN=$(BIN) .venv/bin/python -m pytest -q tests/interop

# The Python package's wheel, of the library that `build` has made: the same profile, nothing is compiled twice.
wheel: build .venv/ready
	.venv/bin/python bindings/python/pack $(abspath $(TARGET_DIR))/debug/lib_core.so $(WHEELS)

test-python: wheel
	.venv/bin/python -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/*.whl
	DATAMESH_BIN=$(BIN) DATAMESH_WHEELS=$(WHEELS) .venv/bin/python -m pytest -q bindings/python/tests

# The reference of the Python package, made of its docstrings: bindings/python/docs/build.
docs-python: wheel
	.venv/bin/python -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/*.whl
	.venv/bin/python -m pdoc --docformat google --output-directory bindings/python/docs/build data_mesh_framework

.venv/ready: tests/interop/requirements.txt bindings/python/requirements.txt bindings/python/requirements-test.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement tests/interop/requirements.txt --requirement bindings/python/requirements.txt \
		--requirement bindings/python/requirements-test.txt
	touch $@

# What checks the Terraform that is written: hclwrite, and the schema of the AWS provider.
tests/terraform/node_modules/ready: tests/terraform/package-lock.json
	cd tests/terraform && npm ci --no-audit --no-fund
	touch $@

# Measures a release build; see bench/README.md.
bench: .venv/ready
	$(CARGO) build --locked --release --workspace
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/publish_csv.py
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/show.py
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/plan.py
	.venv/bin/python bindings/python/pack $(abspath $(TARGET_DIR))/release/lib_core.so $(abspath $(TARGET_DIR))/release/wheels
	.venv/bin/python -m pip install --quiet --no-deps --force-reinstall $(abspath $(TARGET_DIR))/release/wheels/*.whl
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/python.py

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	.ci/layering

# The committed copy of what `datamesh schema` prints; a test checks that it is current.
schema: build
	$(BIN) schema > schema/product.schema.json
