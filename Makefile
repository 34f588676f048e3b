# The commands of this repository; `make help` lists them. Every command works in a
# clean checkout: missing programs are installed first, or listed.

VERSION ?= $(or $(shell git describe --tags --match 'v*' 2>/dev/null | sed 's/^v//'),0.1.0-dev)
COMMIT  ?= $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)

LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

# A third part is the version of 32-bit ARM: 6 for the first Raspberry Pi, 7 for later boards.
AGENT_TARGETS := linux/amd64 linux/arm64 linux/arm/6 linux/arm/7 linux/386 linux/riscv64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64
PANEL_TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

GENERATED := types server client
OAPI_CODEGEN := go tool -modfile=tools/go.mod oapi-codegen
GOLANGCI_LINT := go tool -modfile=tools/lint/go.mod golangci-lint

FUZZTIME ?= 100000x
LOAD_DEVICES ?= 5000

# The version comes from LDFLAGS. Go's own VCS stamping fails if another user owns the checkout.
export GOFLAGS += -buildvcs=false
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install the programs that the other commands need
	@scripts/setup build demo test verify

.PHONY: build
build: ## Build bin/eclitunneld and bin/eclitunnel, with console and API explorer where there is Node.js
	@scripts/node-builds
	$(GOBUILD) -o bin/ ./server/eclitunneld ./clients/eclitunnel

.PHONY: build-all
build-all: ## Build the agent for Linux (32-bit ARM, x86 and RISC-V too), Windows and macOS, and the panel for Linux and macOS, into dist/
	@scripts/node-builds
	@set -e; for target in $(AGENT_TARGETS); do \
		export GOOS=$${target%%/*}; rest=$${target#*/}; export GOARCH=$${rest%/*} GOARM=; \
		name=$$GOOS-$$GOARCH; [ $$rest = $$GOARCH ] || { GOARM=$${rest#*/}; name=$${name}v$$GOARM; }; \
		[ $$GOOS != windows ] || name=$$name.exe; \
		echo "dist/eclitunnel-$$name"; \
		$(GOBUILD) -o dist/eclitunnel-$$name ./clients/eclitunnel; \
	done
	@set -e; for target in $(PANEL_TARGETS); do \
		export GOOS=$${target%/*} GOARCH=$${target#*/}; \
		echo "dist/eclitunneld-$$GOOS-$$GOARCH"; \
		$(GOBUILD) -o dist/eclitunneld-$$GOOS-$$GOARCH ./server/eclitunneld; \
	done

# PLATFORMS="linux/amd64 windows/amd64" releases for some alone.
.PHONY: release
release: ## Write archives, packages and checksums of every platform into dist/, signed with RELEASE_KEY
	@scripts/node-builds
	@go run ./scripts/release -version '$(VERSION)' -commit '$(COMMIT)' -key '$(RELEASE_KEY)' -public-key '$(RELEASE_PUBLIC_KEY)' \
		-agents '$(AGENT_TARGETS)' -panels '$(PANEL_TARGETS)' -platforms '$(PLATFORMS)'

.PHONY: demo
demo: ## Run everything on this machine and play a game through it, until Ctrl-C
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	@go build -o bin/demo ./test/run/demo
	@exec bin/demo -bin bin

.PHONY: test
test: ## Install missing programs and run every test
	@scripts/setup demo test sdk
	@$(MAKE) --no-print-directory test-unit test-sdk test-console test-e2e

# Packages that measure need the machine to themselves: test-e2e runs them one at a time.
MEASURING := ./test/e2e ./test/load ./test/attack ./test/run/bench ./test/run/soak

# Hashing passwords took more than half of the time of tests with the race detector,
# which finds nothing in it: the library's loops are compiled without it.
UNRACED := -gcflags=golang.org/x/crypto/argon2=-race=false

.PHONY: test-unit
test-unit: ## Run the unit and integration tests with the race detector
	go test -race $(UNRACED) -timeout 15m $$(go list ./... | grep -vE '/test/(e2e|load|attack|run/bench|run/soak)$$')

.PHONY: test-e2e
test-e2e: build ## Run the built binaries against nginx, curl, wrk, ssh, iperf3 and dig, and a short soak
	ECLITUNNEL_BIN=$(CURDIR)/bin go test -count=1 -p 1 -timeout 30m $(MEASURING)

.PHONY: test-sdk
test-sdk: build ## Build the TypeScript SDK, and test it in Node.js and Chromium against the built panel
	@scripts/setup demo sdk
	cd clients/ts && npm ci --silent && ECLITUNNEL_BIN=$(CURDIR)/bin npm test

.PHONY: test-console
test-console: build ## Use the console in Chromium, against the built panels and agents
	@scripts/setup demo sdk
	@[ -d clients/console/node_modules ] || npm ci --silent --prefix clients/console
	cd clients/console && npm run check && ECLITUNNEL_BIN=$(CURDIR)/bin npm test

.PHONY: screenshots
screenshots: build ## Take the pictures of console and terminal that the documents show
	@scripts/setup demo sdk
	cd clients/console && ECLITUNNEL_SCREENSHOTS=1 ECLITUNNEL_BIN=$(CURDIR)/bin npm test -- --project browser
	node scripts/terminal-picture.mjs

.PHONY: bench
bench: build ## Measure the tunnel from the player's side; pass flags in BENCH, such as BENCH=--short
	@scripts/setup demo
	@go build -o bin/bench ./test/run/bench
	@bin/bench -bin bin $(BENCH)

.PHONY: load
load: build ## Measure panels with LOAD_DEVICES (5000) devices, and replace them under load
	@scripts/setup demo
	ECLITUNNEL_BIN=$(CURDIR)/bin ECLITUNNEL_LOAD_DEVICES=$(LOAD_DEVICES) go test -count=1 -v -timeout 30m ./test/load

ATTACK_TIME ?= 30s

.PHONY: attack
attack: build ## Attack a whole system for ATTACK_TIME (30s) in each way, and measure its victims; as root
	@scripts/setup demo soak
	ECLITUNNEL_BIN=$(CURDIR)/bin ECLITUNNEL_ATTACK_TIME=$(ATTACK_TIME) CI=1 go test -count=1 -v -timeout 2h ./test/attack

DURATION ?= 2h

.PHONY: soak
soak: build ## Inject failures into a whole fleet for DURATION (2h); pass flags in SOAK, such as SOAK='--seed 1'
	@scripts/setup demo soak
	@go build -o bin/soak ./test/run/soak
	@bin/soak -bin bin -duration $(DURATION) $(SOAK)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (100000x: executions)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

.PHONY: lint
lint: ## Run the linter
	$(GOLANGCI_LINT) run

.PHONY: generate
generate: ## Write gen/, the types of the TypeScript SDK, the tables of openapi.yaml docs/settings.md and the pages of errors, and the import rules of linter and docs
	@set -e; for p in $(GENERATED); do \
		$(OAPI_CODEGEN) -config gen/$$p/oapi-codegen.yaml openapi.yaml; \
	done
	@go test -count=1 -run '^TestPolicy_IsTheTable' ./server/internal/handler -update
	@go test -count=1 -run '^TestSettingsPage_' ./test/deploy -update
	@go test -count=1 -run '^TestErrorPages_' ./server/internal/web -update
	@go test -count=1 ./test/walls -update
	@scripts/setup verify
	@scripts/sdk-types clients/ts/src/generated/contract.ts

.PHONY: verify
verify: ## Fail if generated code has drifted, a go.mod is not tidy, or the contract has breaking changes or lint errors
	@scripts/setup verify
	@scripts/verify $(GENERATED)

.PHONY: clean
clean: ## Remove build output
	rm -rf bin dist node_modules tools/explorer/node_modules tools/consumers/node_modules clients/ts/dist clients/ts/node_modules clients/console/dist clients/console/node_modules
	rm -rf server/internal/web/static/explorer/scalar.js.gz server/internal/web/static/console
