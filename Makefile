# SPDX-License-Identifier: GPL-3.0-or-later
# `make demo` shows a fleet being rolled out on this machine; `make test` runs everything. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test dev lint sanity unit integration packaging molecule bench story clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## a fleet on this machine, and a rollout before your eyes
	@demo/demo up

demo-down: ## stop the demo's fleet
	@demo/demo down

dev: ## install what developing needs: Debian packages, .venv and .venv-newest
	@scripts/system-packages test
	@python3 scripts/venvs.py test

test: dev ## everything below, from cold
	@python3 scripts/test.py lint unit packaging molecule integration

lint: dev ## all linters
	@python3 scripts/lint.py

sanity: dev ## ansible-test sanity alone
	@scripts/sanity

unit: dev ## the unit tests, on both pairs of Python and ansible-core
	@python3 scripts/test.py unit

packaging: dev ## the wheel and the Galaxy tarball, installed into clean places
	@python3 scripts/test.py packaging

molecule: dev ## the role's Molecule scenario, on the testbed
	@python3 scripts/test.py molecule

integration: dev ## real nix, real ssh, real systemd
	@python3 scripts/test.py integration

bench: dev ## how long rollouts take, beside a plain parallel shell loop
	@python3 tests/bench/bench.py

story: dev ## play docs/story.md again, and write it anew
	@FLOTILLA_STORY=1 .venv/bin/python -m pytest -q -p no:cacheprovider tests/integration/test_story.py

clean: ## remove what was made here
	rm -rf .cache .venv .venv-newest dist .mypy_cache .ruff_cache .pytest_cache
