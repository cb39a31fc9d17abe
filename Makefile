# make test is quick and needs nothing but Go: the root module. make all is what
# a change has to pass, and what continuous integration runs. The other targets
# take longer and look for what a fixed set of tests does not.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

FUZZTIME ?= 30s
STEPS ?= 100000
SEEDS ?= 100000

.PHONY: test all fuzz bench soak cover dist install sim bite
.DEFAULT_GOAL := test

# Formatting, vet, the project's own rules, and the tests of the root module.
test:
	@go run -buildvcs=false ./internal/check -root

# Everything: staticcheck, all tests of all modules with the race detector, real
# servers and a browser among them, installed first where they are missing. The
# last line is "N passed, N failed".
all: install
	@bin=$$(mktemp -d); trap 'rm -rf "$$bin"' EXIT; \
	go build -buildvcs=false -o "$$bin/check" ./internal/check; \
	"$$bin/check"

# The compiler, browser, Redis and databases that tests need, by apt-get, if not there.
install:
	@scripts/install.sh

# Every fuzz target for FUZZTIME.
fuzz:
	@scripts/fuzz.sh $(FUZZTIME)

# Ratios beside peers, in one interleaved run.
bench:
	@cd bench && go test -count=1 -timeout=0 -run '^TestTable$$' -v . -full
	@cd front && go test -count=1 -timeout=0 -run '^TestThroughput$$' -v ./e2e -full

# The randomised test of two replicas, with many STEPS.
soak: install
	cd e2e && go test -race -count=1 -timeout=0 -run Soak -v . -steps=$(STEPS)

# The simulation of replicas with many SEEDS (docs/protocol.md), and the proof that
# it finds faults: one is put in at a time, in a copy.
sim:
	@go test -count=1 -timeout=0 -run "^TestSimulation" -v . -sim.seed=0 -sim.seeds=$(SEEDS)

bite:
	@go run ./internal/bite

# Coverage of the root module by its own tests.
cover:
	@go test -coverprofile=coverage.out ./...
	@go tool cover -func=coverage.out | tail -n 1

# signin-front to install: static binaries for Linux and macOS, checksums, bills
# of materials, manual page, completions, and a container image.
dist:
	@go run ./front/dist -out dist
