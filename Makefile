# Everything a fresh machine with Rust, Python and Node needs. What is installed lands inside this folder.
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(abspath $(TARGET_DIR))/debug/datamesh
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
PYTHON ?= python3
WHEELS := $(abspath $(TARGET_DIR))/wheels
PACKAGE_PYTHON := bindings/python/.venv/bin/python

.PHONY: build demo test test-rust test-interop test-python wheel docs-python bench lint schema
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
wheel: build bindings/python/.venv/ready
	$(PACKAGE_PYTHON) bindings/python/pack $(abspath $(TARGET_DIR))/debug/lib_core.so $(WHEELS)

test-python: wheel
	$(PACKAGE_PYTHON) -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/*.whl
	DATAMESH_BIN=$(BIN) DATAMESH_WHEELS=$(WHEELS) $(PACKAGE_PYTHON) -m pytest -q bindings/python/tests

# The reference of the Python package, of its docstrings.
docs-python: wheel
	$(PACKAGE_PYTHON) -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/*.whl
	$(PACKAGE_PYTHON) -m pdoc --docformat google --output-directory bindings/python/docs/build data_mesh_framework

# Its own environment: what the package is tested with has other versions than what the mesh's tests need.
bindings/python/.venv/ready: bindings/python/requirements-test.txt
	$(PYTHON) -m venv bindings/python/.venv
	$(PACKAGE_PYTHON) -m pip install --quiet --requirement bindings/python/requirements-test.txt
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
bench: .venv/ready bindings/python/.venv/ready
	$(CARGO) build --locked --release --workspace
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/publish_csv.py
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/show.py
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/plan.py
	$(CARGO) build --locked --release --workspace --example bench_decide
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh .venv/bin/python bench/decide.py
	$(PACKAGE_PYTHON) bindings/python/pack $(abspath $(TARGET_DIR))/release/lib_core.so $(abspath $(TARGET_DIR))/release/wheels
	$(PACKAGE_PYTHON) -m pip install --quiet --no-deps --force-reinstall $(abspath $(TARGET_DIR))/release/wheels/*.whl
	DATAMESH_BIN=$(abspath $(TARGET_DIR))/release/datamesh $(PACKAGE_PYTHON) bench/publish_python.py

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	.ci/layering

# The committed copy of what `datamesh schema` prints; a test checks that it is current.
schema: build
	$(BIN) schema | $(PYTHON) -m json.tool --sort-keys --no-ensure-ascii --indent 2 > schema/product.schema.json
