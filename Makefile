.PHONY: help setup build demo test check

help:
	@echo "make demo    three nodes on this machine, a crash, a cut and a switch under load, then the reckoning (root)"
	@echo "make test    everything that must hold before a commit: build, lints, all tests (root)"
	@echo "make build   the release binaries alone"
	@echo "make check   format, lints, licences"
	@echo "make setup   the packages that all this needs, on Debian 12 or Ubuntu 24.04; the others do it by themselves"

setup:
	@scripts/setup.sh

build: setup
	@scripts/build.sh

demo: setup
	@scripts/demo.sh

test: setup
	@scripts/test.sh

check: setup
	@scripts/check.sh
