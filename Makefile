# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
#
# `make demo` and `make test` set up everything they need: Debian's packages, a virtual environment, this package.

PYTHON ?= python3
PYTHON39 ?= python3.9
VENV := build/venv
BIN := $(VENV)/bin
STAMP := build/.installed

# Real parts: software TPMs, TPM and tboot tools. The rest builds the oVirt SDK and pycurl where no wheel fits.
SYSTEM_PACKAGES := swtpm swtpm-tools tpm2-tools tboot gnutls-bin openssl \
	python3-venv python3-dev gcc pkg-config libcurl4-openssl-dev libssl-dev libxml2-dev

# The verifier's store is tested on a real PostgreSQL, which the tests start by themselves.
TEST_PACKAGES := postgresql

# The tests of one file stay together: some build on each other, and share what takes long to make.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

RPM_PACKAGES := rpm

SITE_PACKAGES := systemd-container curl

HOSTS ?= 6

VERSION := $(shell sed -n 's/^version = //p' setup.cfg)

.PHONY: help demo test lint types unit test-el9 test-site dist rpm bench soak fuzz clean setup system postgresql

help:
	@echo "make demo   the whole story on software TPMs: measured boot to placement (HOSTS=6)"
	@echo "make test   lint, types and the whole test suite"
	@echo "make lint   formatting, ruff and mypy only"
	@echo "make bench  figures beside their bars, into build/bench.json (BENCH=name for one)"
	@echo "make soak   long campaigns (SEED=number for those of an earlier run)"
	@echo "make fuzz   every parser, guided by coverage (FUZZ_SECONDS=60 each; TARGETS='quote xmlrpc' for these)"
	@echo "make test-site  the packages and units on a booted container with a real systemd (needs root)"
	@echo "make rpm    packages for EL9 into build/rpm (for the Python of this machine, unless built on EL9)"
	@echo "make clean  remove build/"

demo: setup
	$(BIN)/ovirt-tcp demo --hosts $(HOSTS)

test: lint unit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: setup postgresql
	$(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term

# The runtime libraries of EL9, under its Python; not part of `make test`, since a fresh machine may have no 3.9.
test-el9: setup postgresql
	$(PYTHON39) -m venv --clear build/venv-el9
	build/venv-el9/bin/python -m pip install --quiet --upgrade pip setuptools wheel
	build/venv-el9/bin/python -m pip install --quiet --constraint constraints-el9.txt --editable '.[test]'
	build/venv-el9/bin/python -m pytest $(SPREAD)

dist: setup
	$(BIN)/python -m build --outdir build/dist .

# Of the last commit, and with its date: built again at the same path, the bytes are the same (rpm keeps
# the path in the source package, and a digest of that in the others).
rpm: setup
	$(call install,$(RPM_PACKAGES))
	rm -rf build/rpm
	mkdir -p build/rpm/SOURCES
	git archive --format=tar.gz --prefix=ovirt_tcp_plugin-$(VERSION)/ -o build/rpm/SOURCES/ovirt_tcp_plugin-$(VERSION).tar.gz HEAD
	git archive HEAD packaging/rpm | tar -x -C build/rpm
	find build/rpm -type f -exec touch -d "@$$(git log -1 --format=%ct)" {} +
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) rpmbuild -ba --quiet --nodeps \
		--load packaging/rpm/debian.macros --define '__python3 $(CURDIR)/$(BIN)/python' \
		--define '_topdir $(CURDIR)/build/rpm' build/rpm/packaging/rpm/ovirt-tcp.spec
	cd build/rpm && sha256sum $$(find RPMS SRPMS -name '*.rpm' | sort) > SHA256SUMS && cat SHA256SUMS

# The units for real: starts, kills, a late database, wrong modes, enrolment as root. Two minutes.
test-site: rpm
	$(call install,$(SITE_PACKAGES))
	$(BIN)/python -m tests.site.run

fuzz: setup build/.installed-fuzz
	$(BIN)/python -m tests.fuzz.run $(TARGETS)

bench: setup
	$(BIN)/python -m tests.bench.run $(BENCH)

soak: setup postgresql
	SOAK=1 SEED=$(SEED) $(BIN)/python -m pytest -m soak -s --timeout 3600

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup: system $(STAMP)

# Nothing is installed again when it is present.
define install
	@missing=""; \
	for package in $(1); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -q && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
endef

system:
	$(call install,$(SYSTEM_PACKAGES))

# Debian would start a server of its own on installation; it is told not to before that.
postgresql:
	@[ -n "$$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || { \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo mkdir -p /etc/postgresql-common && \
		echo 'create_main_cluster = false' | $$sudo tee /etc/postgresql-common/createcluster.conf >/dev/null; }
	$(call install,$(TEST_PACKAGES))

$(STAMP): setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# What only one command needs: build/.installed-fuzz is the extra `fuzz`.
build/.installed-%: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
