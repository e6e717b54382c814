# p2pd. `make run` starts a node, `make test` is the gate; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := containerd runc docker-registry skopeo umoci nginx-light iproute2 curl systemd procps python3-venv

# Unit tests run in so many processes at a time; end-to-end tests one after another, since they share the machine's ports.
JOBS ?= 2

# End-to-end tests need root. `make test P2PD_E2E=` leaves them out.
P2PD_E2E ?= required

# Where `make compiled` puts the compiled simulator.
COMPILED := build/compiled

# Of `make fuzz`: for each target, and which (all, if none is named).
SECONDS ?= 60
TARGETS ?=

# What `make run` leaves in the checkout: the hosts directory for `ctr`, and the state of a node that is not root's.
LAB := $(CURDIR)/.lab
IMAGE ?= docker.io/library/debian:12
ifeq ($(shell id -u),0)
RUN_OPTIONS ?=
CONTROL_OPTION :=
else
RUN_OPTIONS ?= --set node.state_dir=$(LAB)/state --set node.control=$(LAB)/control.sock
CONTROL_OPTION = $() --control $(LAB)/control.sock
endif

.PHONY: help install apt run test fuzz demo bench compiled simulate fleet hunt hostile lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/.installed ## make .venv with p2pd, p2pd-tracker and the test tools

$(BIN)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "p2pd needs Python 3.11 or newer: make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/apt python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

apt: ## install the Debian packages that tests, demo and benches use (as root; starts no service)
	@.ci/apt $(APT_PACKAGES)

run: install ## start a node with its defaults, and print the ctr line to try
	@command -v ctr >/dev/null || .ci/apt --start containerd
	@mkdir -p $(LAB)
	@$(BIN)/p2pd hosts install $(RUN_OPTIONS) --certs-dir $(LAB)/certs.d --containerd-config /dev/null \
		>$(LAB)/hosts.log 2>&1 || { cat $(LAB)/hosts.log >&2; exit 1; }
	@echo 'Once the log says "mirror on ...", try in another terminal, as root:'
	@echo '    ctr images pull --hosts-dir $(LAB)/certs.d $(IMAGE)'
	@echo 'To look at the node (Ctrl-C here ends it):'
	@echo '    $(CURDIR)/$(BIN)/p2pd status$(CONTROL_OPTION)'
	@echo
	@exec $(BIN)/p2pd run $(RUN_OPTIONS)

test: install apt lint ## lint and all tests, the end-to-end ones last (as root)
	$(BIN)/pytest -m 'not e2e' -n $(JOBS) --dist worksteal
	P2PD_E2E=$(P2PD_E2E) $(BIN)/pytest -m e2e

fuzz: install ## let atheris look for inputs that the parsers do not take, SECONDS= for each target (not in the gate)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

demo: install apt ## watch eight nodes pull one image from one upstream (as root)
	$(BIN)/python -m tests.demo

bench: install apt ## measure; prints tables, takes some fifteen minutes (as root)
	$(BIN)/python -m tests.bench.fanout
	$(BIN)/python -m tests.bench.fanout --link 50Mbit
	$(BIN)/python -m tests.bench.single
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.mirror_vs_nginx
	$(BIN)/python -m tests.bench.hostile_clients
	$(BIN)/python -m tests.bench.peer_throughput
	$(BIN)/python -m tests.bench.peer_throughput --tls
	$(BIN)/python -m tests.bench.tracker_load

compiled: $(COMPILED)/.built ## compile the simulator and the core that it runs (needs a C compiler): two to three times as fast

$(COMPILED)/.built: $(BIN)/.installed $(wildcard p2pd/*.py p2pd/swarm/*.py simulations/*.py)
	$(BIN)/python -m simulations.compile $(COMPILED)
	@touch $@
	@echo 'Compiled. To use it: cd $(COMPILED) and run $(CURDIR)/$(BIN)/python -m simulations.cli ...'

simulate: install ## simulate Kraken's published rollout: 2600 hosts, 3 GB; takes some twenty minutes, leaves a report to look at
	@mkdir -p $(LAB)
	@$(MAKE) --no-print-directory -s compiled || echo 'Not compiled: this takes two to three times as long.'
	@cd $$(test -e $(COMPILED)/.built && echo $(COMPILED) || echo .) && \
		$(CURDIR)/$(BIN)/python -m simulations.kraken --report $(LAB)/rollout.html

fleet: install apt ## measure 16 real daemons on limited links beside the simulator's prediction (as root)
	@$(BIN)/p2pd-sim fleet --nodes 16 --link 15Mbit --image 256MiB --runs 2

hunt: install ## run 2000 seeds of mixed faults with every check on; takes some ten minutes
	@$(BIN)/p2pd-sim hunt --seeds 1-2000

hostile: install apt ## try every kind of hostile node on real daemons; prints a table, takes some ten minutes (as root)
	$(BIN)/python -m tests.hostile.matrix

lint: install ## check the style and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: ## write the lock files anew from pyproject.toml (needs pip-tools)
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra dev --extra sim --allow-unsafe --strip-extras -o requirements.lock pyproject.toml
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra fuzz --constraint requirements.lock --allow-unsafe --strip-extras -o requirements-fuzz.lock pyproject.toml

clean: ## remove what make made
	rm -rf $(VENV) .lab build dist *.egg-info
