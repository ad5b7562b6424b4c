# `make` alone lists the targets. What the lab and its tests do needs root.
PYTHON ?= python3
INVENTORY ?= inventory/lab.py
BIN := .venv/bin
# Hosts that `make verify` looks into at a time.
JOBS ?= 4
# Labs side by side in the lab tests: each waits much of the time.
LABS ?= 4

export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help bench-fleet bench-gateway lab lab-down deploy verify chat dify-backup dify-restore test test-ci check unit test-lab test-root test-dify test-docker test-instances test-driver test-gates test-weights test-slow format docs pins test-settings test-vllm

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

lab: .venv/installed ## Three bare hosts on this machine, deployed, verified, and a chat (root)
	$(BIN)/lab up
	$(BIN)/pyinfra -y inventory/lab.py deploy.py
	@$(MAKE) --no-print-directory verify INVENTORY=inventory/lab.py
	@$(BIN)/fleet chat inventory/lab.py 'What is the capital of France?'

lab-down: .venv/installed ## End the lab and remove every trace of it (root)
	$(BIN)/lab down

deploy: .venv/installed ## Converge INVENTORY
	$(BIN)/pyinfra $(INVENTORY) deploy.py

verify: .venv/installed ## Prove what INVENTORY declares, changing nothing
	@$(BIN)/fleet verify $(INVENTORY) --jobs $(JOBS)

dify-backup: .venv/installed ## Back up Dify on HOST of INVENTORY, and copy the archive here
	$(BIN)/fleet dify backup $(INVENTORY) $(HOST)

dify-restore: .venv/installed ## Put ARCHIVE back on HOST of INVENTORY, which may be bare
	$(BIN)/fleet dify restore $(INVENTORY) $(HOST) $(ARCHIVE)
	$(BIN)/pyinfra -y $(INVENTORY) deploy.py --limit $(HOST)

test: check unit test-lab ## What a change must pass: static checks, unit, plan, lab, compliance (root)

# Alone and first: it holds the lab to its times, and fills the caches that the others share.
LAB_ITSELF = tests/lab/test_lab_hosts.py
LAB_TESTS = $(BIN)/pytest -v -n $(LABS) --ignore $(LAB_ITSELF)

# Of the slow suites CI runs those marked `ci`, beside the others: alone a suite mostly waits.
# `make test-slow` is all of them, for a machine with more time.
LAB_MARKS = not slow
test-ci: LAB_MARKS = not slow or ci
test-ci: check test-settings test-lab ## What CI runs: the same, hostile settings, and one of the slow suites (root)

test-slow: .venv/installed ## Every slow suite: Docker, Dify, the driver and its build, gates, instances, apt, weights (root)
	$(LAB_TESTS) tests/lab -m slow --durations 30

# Every file whose first line names a shell; tests/unit/test_shell_programs.py holds it to that.
SHELL_PROGRAMS = $(shell git grep -lIE --untracked '^\#!.*[/ ](a|ba|da|k)?sh( |$$)')

# As they lie on a host, which may have Ubuntu 22.04's Python.
ON_HOST = $(filter-out %/__init__.py,$(wildcard fleet/*/on_host/*.py))
ON_HOST_PATH = $(shell echo fleet/*/on_host | tr ' ' :)

# Programs in Go, a folder each.
GO_PROGRAMS = $(sort $(dir $(shell git ls-files --cached --others --exclude-standard '*.go')))

check: .venv/installed ## Format, lint, types, imports, shell and Go programs, and generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=$(ON_HOST_PATH) $(BIN)/mypy --python-version 3.10 --explicit-package-bases $(ON_HOST)
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry --no-ansi . $(wildcard fleet/*/on_host)
	$(BIN)/shellcheck $(SHELL_PROGRAMS)
	$(BIN)/python -m lab.upstream.vet $(GO_PROGRAMS)
	$(BIN)/python -m fleet.docs --check

# What the unit tests judge with. The lab installs its own tools.
TOOLS := curl go nft nginx systemd-analyze tar unshare zstd
NGINX_LUA := /usr/lib/nginx/modules/ngx_http_lua_module.so
LUA_CJSON := /usr/share/lua/5.1/cjson/util.lua

unit: .venv/installed ## Unit and plan tests, in seconds
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=1; done; \
	[ -z "$$missing" ] && [ -e $(NGINX_LUA) ] && [ -e $(LUA_CJSON) ] || { [ ! -d /run/systemd/system ] || systemctl mask --runtime nginx; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends \
			curl golang-go libnginx-mod-http-lua lua-cjson nftables nginx systemd tar util-linux zstd; }
	$(BIN)/pytest tests/unit tests/plan -q -n auto -m 'not slow'

test-settings: unit ## Ten thousand hostile settings, judged by what reads the files made of them, and the report in a browser (root, slow)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/pytest tests/unit -q -n auto -m slow

test-lab: .venv/installed ## The lab tests: deploys, breakages, reboots and upgrades on real hosts (root)
	$(BIN)/pytest -v $(LAB_ITSELF)
	$(LAB_TESTS) tests/lab -m '$(LAB_MARKS)' --durations 15

# Of all hosts but those of Debian 12 that a file asks for; "gpu1=TARBALL gpu2=TARBALL" is of these two.
test-root: .venv/installed ## Deploy, gateway, firewall and models on hosts from ROOT, a distribution's tarball (root)
	LLM_FLEET_LAB_ROOT="$(ROOT)" $(LAB_TESTS) $(addprefix tests/lab/test_,deploy.py gateway.py firewall.py models.py)

test-docker: .venv/installed ## Docker and the container toolkit on real hosts (root, slow)
	$(BIN)/pytest tests/lab/test_docker.py tests/lab/test_apt.py -v --durations 5

test-dify: .venv/installed ## The stack of Dify, and Open WebUI, on real hosts (root, slow)
	$(LAB_TESTS) tests/lab/test_dify*.py --durations 5

test-instances: .venv/installed ## Several Ollamas on a host that shows GPUs, and in containers (root, slow)
	$(LAB_TESTS) tests/lab/test_instances.py tests/lab/test_docker_instances.py --durations 5

test-vllm: .venv/installed ## vLLM behind the gateway: ready, dead, frozen, drained, rebooted, on real hosts (root, slow)
	$(LAB_TESTS) tests/lab/test_vllm.py --durations 5

test-driver: .venv/installed ## The GPU driver: on hosts that show GPUs, and Debian's own built for real (root, slow)
	$(LAB_TESTS) tests/lab/test_driver.py tests/lab/test_driver_build.py --durations 5

test-gates: .venv/installed ## Memory and placement of models, on a host that shows GPUs (root, slow)
	$(BIN)/pytest tests/lab/test_gates.py -v --durations 5

test-weights: .venv/installed ## Weights from a hub of the lab's, on a real host (root, slow)
	$(BIN)/pytest tests/lab/test_weights.py -v --durations 5

bench-gateway: .venv/installed ## What the lab's gateway costs, after `make lab` (root)
	$(BIN)/python -m lab.bench_gateway

bench-fleet: .venv/installed ## What a deploy and its checks cost over twenty hosts, beside Ansible (root, slow)
	$(BIN)/python -m lab.bench_fleet

pins: .venv/installed ## Look for newer releases of everything pinned, and write them with their checksums (internet)
	$(BIN)/python -m fleet.newest

format: .venv/installed ## Rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed ## Regenerate docs/settings.md, the index of pages and the table in README.md
	$(BIN)/python -m fleet.docs

# The stamp is newer than the lock only when the environment was installed from it.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || apt-get install -y -qq python3-venv || { echo "Python's venv module is missing; as root: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
