# Everything a fresh machine with Rust, Python and Node needs. What is installed lands inside this folder.
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(abspath $(TARGET_DIR))/debug/datamesh
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
PYTHON ?= python3
WHEEL = $$(ls -t $(abspath $(TARGET_DIR))/wheels/data_mesh_framework-*.whl | head -n 1)

.PHONY: build demo test test-rust test-interop test-python docs-python bench lint schema
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

# The tests of the Python package, on its wheel.
test-python: wheel bindings/python/.venv/ready
	bindings/python/.venv/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEEL)
	DATAMESH_WHEEL=$(WHEEL) bindings/python/.venv/bin/python -m pytest -q bindings/python/tests

# The reference of the Python package, of its docstrings, in bindings/python/docs/build.
docs-python: wheel bindings/python/.venv/ready
	bindings/python/.venv/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEEL)
	bindings/python/.venv/bin/python -m pdoc --docformat google --output-directory bindings/python/docs/build data_mesh_framework

bindings/python/.venv/ready: bindings/python/requirements-test.txt
	$(PYTHON) -m venv bindings/python/.venv
	bindings/python/.venv/bin/python -m pip install --quiet --requirement bindings/python/requirements-test.txt
	touch $@

.venv/ready: tests/interop/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement tests/interop/requirements.txt
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

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	.ci/layering

# The committed copy of what `datamesh schema` prints; a test checks that it is current.
schema: build
	$(BIN) schema > schema/product.schema.json
