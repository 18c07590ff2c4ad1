# Everything a fresh machine with Rust, Python and Node needs. What is installed lands inside this folder.
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(abspath $(TARGET_DIR))/debug/datamesh
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
PYTHON ?= python3

.PHONY: build demo test test-rust test-interop bench lint schema
build:
	$(CARGO) build --locked --workspace --all-targets

demo: build
	DATAMESH_BIN=$(BIN) examples/flights/demo

test: test-rust test-interop

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
