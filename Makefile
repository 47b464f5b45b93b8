# `make` lists the targets. Only Go and a C compiler are needed, except for `integration` and some rows of `faults`.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
CC      ?= cc
CFLAGS  ?= -O2 -g -std=c11 -Wall -Wextra -Werror
OUT     := build/out
# 0.1.0 at the tag v0.1.0, 0.1.0+3.g0123456789ab three commits later, and 0.0.0+N... before the first tag.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --abbrev=12 --dirty=.dirty 2>/dev/null | sed -E -e 's/^v//' -e '/-[0-9]+-g/!s/\.dirty$$/+dirty/' -e 's/-([0-9]+)-g/+\1.g/' | grep . || \
	echo "0.0.0+$$(git rev-list --count HEAD 2>/dev/null || echo 0).g$$(git describe --always --exclude '*' --abbrev=12 --dirty=.dirty 2>/dev/null || echo unknown)")
COMMIT  ?= $(shell git describe --always --exclude '*' --abbrev=12 --dirty 2>/dev/null || echo unknown)
IMAGE   ?= fluent-bit-defender:$(subst +,-,$(VERSION))

# Tools are pinned here and run through the module cache: nothing is installed on the machine.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# Images, some with a digest, are in one file.
FLUENT_BIT_IMAGE ?= $(shell sed -n -E 's/^  fluent-bit: .*"(.+)".*/\1/p' examples/try/images.yaml)

# Everything but the cgo boundary is pure Go and stays so.
PURE = $(shell $(GO) list ./... | grep -v '/plugin$$')

# Every package is tested with the race detector but these: what their tests call works on one
# goroutine. They are tested without it, and so are packages whose tests are smaller under it.
ALONE   = $(addsuffix $$,build/arch build/docs build/ocsf examples examples/demo/story transform/event transform/format transform/record)
# The longest two come first, so that nothing waits for them at the end.
RACED   = ./plugin ./input/blob $(shell $(GO) list ./... | grep -v $(ALONE:%=-e '/%') -e '/plugin$$' -e '/input/blob$$')
UNRACED = $(shell $(GO) list ./... | grep $(ALONE:%=-e '/%') -e '/input$$' -e '/transform$$')
# Long tests of transform on one goroutine: the race detector would find nothing in them.
SINGLE  = TestLongNamesAreNotKept|TestBadRecordBetweenGoodOnes|TestTooManyValues|TestEveryTableInEachFormat|TestWrappings|$\
	TestOCSFIsValid|TestLargeObjectsDoNotHideTheColumns|TestInventedTenantsGiveWay|TestShapesKeepTheRecord|TestSlowDamage|TestCutEverywhere
# Tests of input/blob that are smaller, or left out, under the race detector. The others take minutes.
REDUCED = TestFake|TestLongValueBehindSomething|TestValuesAroundTheLimit|TestPackedSize|TestSameHeadOtherRest|TestListCalls|TestShared|TestSharedLargeShard|TestSharedScale

FUZZTIME  ?= 20000x
BENCHTIME ?= 1s
ARCHES    ?= amd64 arm64
SOAK      ?= 30m
# The table of a whole run is written there. A run of some rows writes none, unless README names a file.
README    ?= $(if $(ROWS),,build/faults/README.md)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

plugin: ## build build/out/in_defender.so
	@mkdir -p $(OUT)
	CGO_ENABLED=1 $(GO) build -buildmode=c-shared -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)" -o $(OUT)/in_defender.so ./plugin

host: $(OUT)/host ## build build/out/host, which loads the plugin as Fluent Bit does

$(OUT)/host: $(wildcard build/host/*.c build/host/*.h)
	@mkdir -p $(OUT)
	$(CC) $(CFLAGS) -rdynamic -o $@ $(filter %.c,$^) -ldl -lpthread -lm

packages: ## .deb, .rpm and .tar.gz for amd64 and arm64, with SBOM, licences and sums, into build/out/packages. ARCHES=amd64
	GO='$(GO)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' ARCHES='$(ARCHES)' NFPM='$(NFPM)' CYCLONEDX='$(CYCLONEDX)' OUT=$(OUT)/packages WORK=$(OUT)/package build/package/build.sh

# Needs Debian's tools, root for a chroot, and qemu for arm64. It names those that are missing; in CI that is an error.
test-packages: packages host ## tests of the packages: contents, same bytes twice, install in a chroot, run in the image's root
	$(GO) test -tags packages -count=1 -timeout 40m $(TESTFLAGS) ./build/package ./build/image

# DEFENDER_SO and DEFENDER_HOST are what the tests of plugin/ run instead of building both.
arm64: ## the plugin on arm64, in qemu-user: events, bad input, SIGKILL, hot reload
	@command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null || { echo "needs Debian's qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"; exit 1; }
	@$(MAKE) --no-print-directory plugin host OUT=$(OUT)/arm64 GOARCH=arm64 CC=aarch64-linux-gnu-gcc
	@printf '#!/bin/sh\nexec qemu-aarch64 -L /usr/aarch64-linux-gnu %s "$$@"\n' $(CURDIR)/$(OUT)/arm64/host >$(OUT)/arm64/emulated && chmod +x $(OUT)/arm64/emulated
	DEFENDER_SO=$(CURDIR)/$(OUT)/arm64/in_defender.so DEFENDER_HOST=$(CURDIR)/$(OUT)/arm64/emulated $(GO) test -count=1 $(TESTFLAGS) \
		-run '^(TestEventsArriveThroughTheLibrary|TestBadInputBetweenGoodRecords|TestKilledTwentyTimesUnderLoad|TestHotReloadOfTwoSections)$$' ./plugin

# Only for the platforms of the image: another architecture needs its cross compiler.
comma := ,
image: ARCHES = $(if $(PLATFORMS),$(patsubst linux/%,%,$(subst $(comma), ,$(PLATFORMS))),$(shell $(GO) env GOHOSTARCH))
image: packages ## build the image with Fluent Bit and the package (needs Docker). IMAGE names it, PLATFORMS=linux/amd64,linux/arm64
	docker buildx build -f build/Dockerfile -t $(IMAGE) --build-arg VERSION=$(VERSION) $(if $(PLATFORMS),--platform $(PLATFORMS)) \
		--build-arg FLUENT_BIT_IMAGE=$(FLUENT_BIT_IMAGE) .

release: ## the packages of the newest version in CHANGELOG.md, with its notes, in build/out/release; refuses a dirty tree
	MAKE='$(MAKE)' OUT=$(OUT)/release WORK=$(OUT)/package build/package/release.sh

demo: plugin host ## records on the screen: an embedded Event Hub, the plugin, a host. FROM=path replays files instead, FORMAT=splunk shows another shape, REPEATS=drop drops the 3 % of repeats
	@$(GO) run ./examples/demo $(if $(FORMAT),-format '$(FORMAT)') $(if $(REPEATS),-repeats '$(REPEATS)') $(if $(FROM),-from '$(FROM)')

demo-blob: plugin host ## the same from a storage account inside the demo, which grows while you watch
	@$(GO) run ./examples/demo -blob $(if $(FORMAT),-format '$(FORMAT)')

test: plugin host ## every test, with leak checks; with the race detector where goroutines work together
	@failed=0; \
	run() { echo "$$*"; "$$@" || failed=1; }; \
	run env DEFENDER_SO=$(CURDIR)/$(OUT)/in_defender.so DEFENDER_HOST=$(CURDIR)/$(OUT)/host \
		$(GO) test -race -vet=off -timeout 30m -p 3 -parallel 6 -skip '^($(SINGLE))$$' $(TESTFLAGS) $(RACED); \
	export CGO_ENABLED=0; \
	run $(GO) vet $(PURE); \
	run $(GO) test -vet=off -timeout 30m -p 3 -parallel 6 $(TESTFLAGS) $(UNRACED); \
	run $(GO) test -vet=off -parallel 6 $(TESTFLAGS) -run '^($(REDUCED))$$' ./input/blob; \
	exit $$failed

integration: plugin host ## tests against real servers: Apache Kafka (needs java and mvn), Azurite (needs node and npm)
	$(GO) test -race -tags integration -run Integration -timeout 20m -v $(TESTFLAGS) ./...

# Rows on real servers prepare those themselves, as integration does. If something is missing, the table names it.
faults: plugin host ## the fault matrix: every fault under load, events counted. ROWS=ci or names, SEED=n. All rows go into README=build/faults/README.md
	$(GO) run ./build/faults $(if $(ROWS),-rows $(ROWS)) $(if $(SEED),-seed $(SEED)) $(if $(README),-readme $(README))

mutants: ## break the plugin in seven ways on purpose, and see the matrix fail each time
	$(GO) test -tags faults -count=1 -run TestMutants -v ./build/faults

soak: plugin host ## SOAK (30m) at full speed with faults drawn at random; SEED=n, and FLAGS=-soak-fluent-bit for Fluent Bit
	$(GO) run ./build/faults -soak $(SOAK) $(if $(SEED),-seed $(SEED)) $(FLAGS)

bench: ## benchmarks on whole envelopes of mixed tables: MB/s and allocations
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

# As a number of runs: with a time, go test reports a target that is busy when it is over as failed (golang/go#75804).
fuzz: ## run every fuzz target FUZZTIME (20000x, or a time such as 10m)
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func / /' | sort | { failed=0; while read -r file target; do \
		echo "== $$(dirname $$file) $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x "$$(dirname $$file)" || failed=1; \
	done; exit $$failed; }

statefuzz: ## STATEFUZZ (5000) random changes of the state file, closed and open, each in a process of its own. SEED=n
	DEFENDER_STATEFUZZ=$(or $(STATEFUZZ),5000) $(if $(SEED),DEFENDER_SEED=$(SEED)) \
		$(GO) test -count=1 -timeout 60m -run '^TestStateFileChanges$$' -v ./input

lint: ## gofmt, vet and staticcheck (pinned)
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
		[ -z "$$unformatted" ] || { echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags integration,faults,packages ./...
	$(GO) run $(STATICCHECK) ./...
	bash -n .ci/run build/package/*.sh && sh -n build/package/files/check

vuln: ## govulncheck (pinned); warns loudly if its database cannot be reached; GOVULNDB names another
	@GO='$(GO)' TOOL='$(GOVULNCHECK)' bash build/vuln.sh

settings-table: ## write the table of examples/settings.md from the declarations in the code
	CGO_ENABLED=1 $(GO) test ./plugin -run TestSettingsTable -write

check: lint vuln test ## what to run before a push

clean: ## remove what was built
	rm -rf $(OUT)

.PHONY: help plugin host packages test-packages arm64 image release demo demo-blob test integration faults mutants soak bench fuzz lint vuln settings-table check clean
