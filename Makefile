# Two commands do everything on a machine that has Python ≥ 3.11, git and make:
#   make repro    run the pipeline on the embedded sample
#   make test     check the code, its style and its types

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
OFFICIAL := .venv-official/installed
HOSTS := .venv-hosts/installed
SITE := .venv-site/installed

.PHONY: repro test check browser everywhere walkthrough official-score hosts site faults fuzz growth \
	bench audit golden lock clean
.DELETE_ON_ERROR:

repro: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

# two processes share two cores better when their threads wait without spinning, and end together when the files with
# the fewest tests, which take the longest, are not left to the end
test: $(INSTALLED) check
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# the DVC plots page and the report in a real browser; needs Chromium
browser: $(INSTALLED)
	$(BIN)/python -m pytest tests/campaigns/browser.py

# the same bytes on other x86-64 processors; needs qemu-user, takes some minutes
everywhere: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.everywhere

# every command of README.md and docs/ in a fresh clone, on a sample of seconds; 7 to 13 minutes
walkthrough: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.walkthrough

# our figures against those of the challenge's own scoring program, in an environment of its own
official-score: $(INSTALLED) $(OFFICIAL)
	$(BIN)/python -m pytest tests/campaigns/official_score.py

# CCLLoss in Lightning, transformers and timm, in an environment of their own that has the project's wheel
hosts: $(HOSTS)
	rm -rf build
	.venv-hosts/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
		--force-reinstall .
	rm -rf build
	OMP_WAIT_POLICY=PASSIVE .venv-hosts/bin/python -m pytest tests/campaigns/hosts.py

# the documentation as a site in build/site, with pages made of the docstrings; a broken link fails
site: $(SITE)
	.venv-site/bin/python -m mkdocs build
	.venv-site/bin/python docs/site/links.py build/site

# plant faults of every kind, kill and spoil runs, and count what survives; half an hour on one core
faults: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.faults

# spoil images, tables, zips, features, soft labels, folders, params and model files at random, INPUTS of them; half a million take ten minutes
fuzz: INPUTS ?= 500000
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.fuzz --inputs $(INPUTS)

# every stage on IMAGES small images of CLASSES classes: the time and memory of each
growth: IMAGES ?= 100000
growth: CLASSES ?= 1000
growth: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.growth $(IMAGES) $(CLASSES)

# how fast it is, beside bare torch, Pillow, torchvision and timm; about an hour on a machine that is left alone
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks all

# known vulnerabilities of the pinned packages; asks a public database
audit: $(INSTALLED)
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# after a change of what is computed: new hashes for tests/project/test_golden.py
golden: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.golden --write

# after a change of pyproject.toml: pins and hashes for every platform and Python version
lock: $(INSTALLED)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-annotate --no-header \
		--fork-strategy fewest -o requirements.lock
	printf 'isic-challenge-scoring==5.6.0\npandas<3\n' | $(BIN)/uv pip compile - --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --fork-strategy fewest -o tests/campaigns/official_score.lock
	printf 'accelerate\nlightning\npytest\nsetuptools\ntransformers\n' | $(BIN)/uv pip compile pyproject.toml - \
		--extra timm --constraint requirements.lock --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header --fork-strategy fewest -o tests/campaigns/hosts.lock
	printf 'mkdocs<2\nmkdocs-material\nmkdocstrings[python]\nruff\n' | $(BIN)/uv pip compile - \
		--constraint requirements.lock --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--fork-strategy fewest -o docs/site/requirements.lock

clean:
	rm -rf .venv .venv-official .venv-hosts .venv-site

# installs again only when the lock or the project's own metadata changes
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@echo "Installing into .venv: some minutes and 5 GB, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

$(OFFICIAL): tests/campaigns/official_score.lock
	$(PYTHON) -m venv .venv-official
	.venv-official/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(HOSTS): tests/campaigns/hosts.lock
	@echo "Installing into .venv-hosts: some minutes and 5 GB, once"
	$(PYTHON) -m venv .venv-hosts
	.venv-hosts/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(SITE): docs/site/requirements.lock
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@
