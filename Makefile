# Two commands do everything: `make demo` and `make test`. The rest is what they are made of; `make help` lists it.
.DEFAULT_GOAL := help
# The Pythons that comfypin supports and tests, newest last; pyproject.toml's classifiers say the same (a test compares).
PYTHONS := 3.11 3.12 3.13 3.14
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3.13 python3.14 python3,$(if $(shell $(p) -c 'import sys, venv, ensurepip; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
SYNC := UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --quiet --inexact

.PHONY: help install install-dev shell demo test test-unit test-pythons lint check-types check-imports test-comfyui test-soak screenshots site bench clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "comfypin needs Python 3.11 or newer with venv and pip (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml uv.lock
	@echo "installing what comfypin needs, 1 to 3 minutes the first time"
	$(SYNC) --no-default-groups --compile-bytecode
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(SYNC) --group dev
	@touch $@

# One more than there are cores: many tests wait for processes that they started.
TEST_WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1 )))
EXTRAS ?= all
install: $(VENV)/.run  ## install comfypin and its extras into .venv (EXTRAS="s3 serve" for fewer)
	$(SYNC) --no-default-groups --compile-bytecode $(addprefix --extra ,$(EXTRAS))
	@echo "comfypin is in $(BIN); '. $(BIN)/activate' puts it on PATH"

shell: $(VENV)/.run  ## open a shell that has comfypin on its PATH
	@VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(abspath $(BIN)):$$PATH" exec "$${SHELL:-sh}"

install-dev: $(VENV)/.dev  ## the same, with what tests and checks need

demo: $(VENV)/.run  ## run the demo workflow; the picture is out/demo.png
	@mkdir -p out
	$(BIN)/python -m rp_handler.main --lock lockfiles/comfy-demo.lock.json --workflow workflows/demo.json \
	    --output base64 --out-file out/demo.png
	@echo "The picture is in out/demo.png. Next, your own workflow on your own ComfyUI:"
	@echo "    . $(BIN)/activate        # or: make shell"
	@echo "    comfypin run --comfy-home ~/ComfyUI --workflow my-workflow.json --output file"
	@echo "'make install' adds what buckets and 'comfypin serve' need."

test: $(VENV)/.dev lint check-types check-imports  ## run all checks and all tests (PYTEST_ARGS=... is passed on)
	$(BIN)/python -m tools.run_tests -n $(TEST_WORKERS) $(PYTEST_ARGS)

test-unit: $(VENV)/.dev  ## run the unit tests: no network, no servers, under a minute
	$(BIN)/pytest -n $(TEST_WORKERS) tests/unit $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff: mistakes and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

check-imports: $(VENV)/.dev  ## import-linter: rooms import downwards only
	$(BIN)/lint-imports

test-pythons: $(VENV)/.made  ## run the unit tests on each supported Python that is on the PATH or in pyenv
	@for version in $(PYTHONS); do \
	    found=; \
	    for python in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	        $$python -c "import sys; assert sys.version.startswith('$$version.')" 2>/dev/null && found=$$python && break; \
	    done; \
	    test -n "$$found" || { echo "Python $$version is not on this machine"; continue; }; \
	    echo "Python $$version: $$found"; \
	    UV_PROJECT_ENVIRONMENT=$(VENV)-$$version $(BIN)/uv sync --frozen --quiet --group dev --python $$found && \
	    $(VENV)-$$version/bin/pytest -q -n auto tests/unit $(PYTEST_ARGS) || exit 1; \
	done

# Any release that was recorded will do. COMFYUI_DIR is a ComfyUI with its .venv, or a folder with both.
test-comfyui: $(VENV)/.dev  ## test against a real ComfyUI (COMFYUI_DIR=... starts one, COMFYUI_URL=... takes a running one)
	@test -n "$(COMFYUI_DIR)$(COMFYUI_URL)" || { echo "make test-comfyui needs COMFYUI_DIR=FOLDER (a ComfyUI with its .venv, or a folder with both) or COMFYUI_URL=URL"; exit 1; }
	COMFYUI_DIR="$(COMFYUI_DIR)" COMFYUI_URL="$(COMFYUI_URL)" $(BIN)/pytest -m comfyui -n 0 -rA $(PYTEST_ARGS)

test-soak: $(VENV)/.dev  ## also run the long soak and kill tests
	$(BIN)/pytest --soak $(PYTEST_ARGS)

screenshots: $(VENV)/.dev  ## take the pictures of docs/page.md (needs chromium)
	$(BIN)/python -m tests.support.screenshots docs/pictures

bench: $(VENV)/.dev  ## run every bench (a quarter of an hour, on a quiet machine) and write docs/performance.md
	$(SYNC) --group dev --group bench
	$(BIN)/python -m bench --out docs

site: $(VENV)/.dev  ## build the documentation site into build/site (English and Russian)
	$(BIN)/python -m tools.site

clean:  ## remove the environment, outputs and caches
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .pytest_cache
