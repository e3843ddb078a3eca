# Two commands do everything: `make demo` and `make test`. The rest is what they are made of.
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3.13 python3,$(if $(shell $(p) -c 'import sys, venv, ensurepip; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
SYNC := UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --quiet --inexact

.PHONY: demo test test-pythons lint check-types check-imports test-comfyui test-soak clean

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "comfypin needs Python 3.11 or newer with venv and pip (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml uv.lock
	$(SYNC) --no-default-groups --compile-bytecode
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(SYNC) --group dev
	@touch $@

demo: $(VENV)/.run
	@mkdir -p out
	$(BIN)/python -m rp_handler.main --lock lockfiles/comfy-demo.lock.json --workflow workflows/demo.json \
	    --output base64 --out-file out/demo.png
	@echo "The picture is in out/demo.png"

test: $(VENV)/.dev lint check-types check-imports
	$(BIN)/pytest -n auto $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(VENV)/.dev
	$(BIN)/mypy

check-imports: $(VENV)/.dev
	$(BIN)/lint-imports

# The unit tests on every Python that comfypin supports and this machine has, on the PATH or with pyenv.
test-pythons: $(VENV)/.made
	@for version in 3.11 3.12 3.13; do \
	    found=; \
	    for python in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	        $$python -c "import sys; assert sys.version.startswith('$$version.')" 2>/dev/null && found=$$python && break; \
	    done; \
	    test -n "$$found" || { echo "Python $$version is not on this machine"; continue; }; \
	    echo "Python $$version: $$found"; \
	    UV_PROJECT_ENVIRONMENT=$(VENV)-$$version $(BIN)/uv sync --frozen --quiet --group dev --python $$found && \
	    $(VENV)-$$version/bin/pytest -q -n auto tests/unit $(PYTEST_ARGS) || exit 1; \
	done

# Against a real ComfyUI of any release that was recorded: COMFYUI_DIR=FOLDER starts one, COMFYUI_URL=URL takes a running one.
test-comfyui: $(VENV)/.dev
	@test -n "$(COMFYUI_DIR)$(COMFYUI_URL)" || { echo "make test-comfyui needs COMFYUI_DIR=FOLDER (a ComfyUI with its .venv, or a folder with both) or COMFYUI_URL=URL"; exit 1; }
	COMFYUI_DIR="$(COMFYUI_DIR)" COMFYUI_URL="$(COMFYUI_URL)" $(BIN)/pytest -m comfyui -n 0 -rA $(PYTEST_ARGS)

test-soak: $(VENV)/.dev
	$(BIN)/pytest --soak $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) out dist .mypy_cache .ruff_cache .pytest_cache
