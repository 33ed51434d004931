# The project's one task file: each target is a few lines. `make setup` is what the others stand on.
PYTEST = .venv/bin/python -m pytest
# One worker more than there are cores, since many tests wait; a file's tests share fixtures and stay together.
PARALLEL = -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-long test-vm lint bench bench-quick bench-update screenshots clean

setup:            ## system packages and .venv/bin/oscirc
	@deploy/setup.sh

demo: setup       ## build a disk, publish it, boot it over HTTP, update it
	@.venv/bin/python deploy/demo.py

test: setup       ## the everyday suite: under 15 minutes on two cores, boots the small guest, drives a browser
	@deploy/setup.sh tests
	$(PYTEST) -m "not vm and not long" $(PARALLEL) $(ARGS)

test-long: setup  ## soaks and loads that need minutes, not seconds; no guest
	@deploy/setup.sh tests
	$(PYTEST) -m long --timeout 1800 -o faulthandler_timeout=1900 $(ARGS)

test-vm: setup    ## the stock Debian disk: builds it (once), publishes, mounts, boots
	@deploy/setup.sh debian
	$(PYTEST) -m vm --timeout 3600 -o faulthandler_timeout=3700 $(ARGS)

lint: setup       ## style, types, import arrows
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup      ## ratios against named peers; writes bench/results/ and docs/performance.md; ARGS="boot_cold --link 100:20"
	@deploy/setup.sh debian
	.venv/bin/python bench/run.py $(ARGS)

bench-quick: setup   ## one disk, one link, each contender once: under three minutes, once its disk is prepared
	@deploy/setup.sh debian
	.venv/bin/python bench/run.py quick $(ARGS)

bench-update: setup  ## an update's bytes against casync, zsync, xdelta3 and zstd; 20 minutes; ARGS="--quick": 4, once its disks are built
	@deploy/setup.sh debian
	.venv/bin/python bench/update.py $(ARGS)
	.venv/bin/python bench/run.py page

screenshots: setup   ## docs/screenshots/: the main pages of a made-up catalog, light and dark, as Chromium shows them
	@deploy/setup.sh tests
	.venv/bin/python tests/browser/screenshots.py

clean:            ## what the targets above left in this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
