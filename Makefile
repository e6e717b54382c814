# p2pd. `make run` starts a node, `make test` is the gate; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := containerd runc docker-registry skopeo umoci nginx-light iproute2 curl systemd procps python3-venv

.PHONY: help install apt run test demo bench lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/.installed ## make .venv with p2pd, p2pd-tracker and the test tools

$(BIN)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || apt-get install -y -q python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --require-hashes -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

lock: ## write requirements.lock anew from pyproject.toml (needs pip-tools)
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra dev --allow-unsafe --strip-extras -o requirements.lock pyproject.toml

clean: ## remove what make made
	rm -rf $(VENV) .make build dist *.egg-info
