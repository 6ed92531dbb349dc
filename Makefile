# tdmpc2 - distributed TD-MPC2 in C.
#
#   make run     set up, build, train a task and show its curve   (ARGS="task=... steps=...")
#   make run-pixels  train from frames in the background, show how far it has come  (the same)
#   make test    every test suite; SAN=address,undefined or SAN=thread for the sanitizers
#   make help    the rest

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SECONDARY:

PREFIX ?= /usr/local
SAN    ?=
ARGS   ?=

comma   := ,
FLAVOUR := $(if $(SAN),san-$(subst $(comma),-,$(SAN)),release)
B       := build/$(FLAVOUR)
GEN     := build/gen
ARCH    := $(shell $(CC) -print-multiarch 2>/dev/null)
BLASDIR := /usr/lib/$(ARCH)/openblas-serial
MUJOCO  := $(CURDIR)/third_party/mujoco
SETUP   := third_party/.setup
Q       := $(if $(V),,@)
show     = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2))

# --- flags -----------------------------------------------------------------

CFLAGS_WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wformat=2 -Wstrict-prototypes \
               -Wmissing-prototypes -Wno-format-zero-length -Werror=implicit-function-declaration
CFLAGS_HARD := $(if $(SAN),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE)
CFLAGS_SAN  := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined)
CFLAGS_ALL  := -std=gnu11 -O3 -g -ffp-contract=off -fno-omit-frame-pointer $(CFLAGS_WARN) \
               $(CFLAGS_HARD) $(CFLAGS_SAN) -D_GNU_SOURCE -pthread \
               -I. -I$(GEN) -I$(MUJOCO)/include -I$(BLASDIR:/usr/lib/%=/usr/include/%) \
               -isystem /usr/include/libxml2 $(CFLAGS)
RPATHS      := -Wl,-rpath,'$$ORIGIN/../lib/tdmpc2' -Wl,-rpath,$(BLASDIR)
LDFLAGS_ALL := $(if $(SAN),-fsanitize=$(SAN),-pie -Wl,-z,relro,-z,now) -pthread -Wl,--as-needed \
               $(RPATHS) -Wl,-rpath,$(MUJOCO)/lib $(LDFLAGS)
LDLIBS      := -lzmq -lprotobuf-c -llmdb -luv -lyaml -lcjson -lxxhash -lzstd -lcrypto -lxml2 -lmicrohttpd -lncursesw -ltinfo \
               $(BLASDIR)/libopenblas.so.0 $(MUJOCO)/lib/libmujoco.so.3.1.2 -lm

# --- sources ---------------------------------------------------------------

MAINS    := learner/main.c learner/replay/main.c actor/main.c tools/main.c
LIB_SRC  := $(filter-out $(MAINS),$(shell find common learner actor -name '*.c' 2>/dev/null | LC_ALL=C sort))
TOOL_SRC := $(filter-out $(MAINS),$(wildcard tools/*.c))
PROTO    := $(wildcard proto/*.proto)
PROTO_C  := $(PROTO:proto/%.proto=$(GEN)/%.pb-c.c)
PROTO_H  := $(PROTO_C:.c=.h)

LIB      := $(B)/libtdmpc2.a
obj       = $(patsubst %.c,$(B)/%.o,$(1))
PROGRAMS := $(if $(wildcard tools/main.c),$(B)/bin/tdmpc2) \
            $(if $(wildcard learner/main.c),$(B)/bin/tdmpc2-learner) \
            $(if $(wildcard learner/replay/main.c),$(B)/bin/tdmpc2-replay) \
            $(if $(wildcard actor/main.c),$(B)/bin/tdmpc2-actor)

TEST_SUPPORT := $(call obj,$(wildcard tests/support/*.c))
TEST_SRC := $(shell find tests/unit tests/sim tests/crash tests/fuzz tests/process -name 'test_*.c' 2>/dev/null | LC_ALL=C sort)
TESTS    := $(TEST_SRC:%.c=$(B)/%)
LONG_SRC := $(shell find tests -name 'long_*.c' 2>/dev/null | LC_ALL=C sort)
LONGS    := $(LONG_SRC:%.c=$(B)/%)
# fuzz targets: with a driver of ours in `make test`, with libFuzzer in `make fuzz`
FUZZ_SRC := $(wildcard tests/fuzz/targets/*.c)
FUZZ     := $(FUZZ_SRC:%.c=$(B)/%)
# libFuzzer's build is what parses, not the kernels, whose vector code gcc alone takes as it is written
FUZZED   := common/util/% common/metrics/% common/ckpt/% common/store/% common/wire/% common/net/% \
            common/env/bridge_message.c common/env/places.c learner/progress.c
FUZZ_OBJ := $(if $(FUZZ_MAIN),$(call obj,$(filter-out common/ckpt/weights%,$(filter $(FUZZED),$(LIB_SRC))) $(wildcard tools/stats*.c tools/console.c)) \
            $(PROTO_C:$(GEN)/%.c=$(B)/gen/%.o),$(B)/tests/fuzz/driver.o $(call obj,$(TOOL_SRC)) $(LIB))
# ONLY=pattern builds and runs the matching programs alone
CHOSEN   := $(if $(ONLY),$(foreach test,$(TESTS) $(FUZZ),$(if $(findstring $(ONLY),$(test)),$(test))),$(TESTS) $(FUZZ))
# helper programs that tests start or preload: tests/support/bin_*.c is never linked into a test
TEST_SUPPORT := $(filter-out $(B)/tests/support/bin_%.o,$(TEST_SUPPORT))
PRELOADS := $(patsubst %.c,$(B)/%.so,$(wildcard tests/support/bin_*.c))

# --- targets ---------------------------------------------------------------

.PHONY: setup-metaworld setup-myosuite setup-maniskill setup-gym test-suites test-interop test-monitoring test-dashboard test-slurm
.PHONY: all setup docs man test-docs run run-pixels test test-long soak fuzz fuzzers bench bench-render bench-fleet bench-metrics install uninstall deb test-deb test-systemd test-deploy clean help programs tests
all: programs

help:
	@echo 'make            build everything into $(B)/bin'
	@echo 'make setup      install what is missing (Debian packages, MuJoCo, model files)'
	@echo 'make setup-metaworld, setup-myosuite, setup-maniskill, setup-gym'
	@echo '                environments in Python, each in a private virtual environment in third_party/'
	@echo 'make run        set up, build, train; ARGS="task=walker-walk steps=500000" trains anything'
	@echo 'make run-pixels train from frames in the background; the second time show how far it is'
	@echo 'make test       all suites; SAN=address,undefined or SAN=thread; ONLY=pattern for some'
	@echo 'make test-long  the long versions: more rounds, more seeds, learning'
	@echo 'make soak       hours of faults: ROUNDS=10000 kills, TIME=3600 seconds at full rate, the long versions of'
	@echo '                what is about losing nothing; ONLY=pattern for some'
	@echo 'make fuzz       libFuzzer with clang on every parser, TIME=60 seconds each; ONLY=pattern for some'
	@echo 'make test-interop  PyTorch and tensordict, from PyPI into third_party/, load our exports and we theirs'
	@echo 'make test-suites'
	@echo '                Meta-World, MyoSuite, ManiSkill2, Gymnasium: set up, stepped, briefly trained'
	@echo 'make test-monitoring'
	@echo '                a real Prometheus and the tensorboard package read what a run shows'
	@echo 'make test-dashboard'
	@echo '                the dashboard of a real run in a real Chromium; PICTURES=DIR keeps what it looked like'
	@echo 'make test-slurm    launch on a real Slurm of this machine'
	@echo 'make docs       the documents as a small site in build/docs (MkDocs from PyPI into third_party/)'
	@echo 'make man        manual pages of the programs in build/man'
	@echo 'make test-docs  every command in the documents, the long ones with small sizes, and the site itself'
	@echo 'make bench      all benchmarks; make bench-render draws beside dm_control itself,'
	@echo '                make bench-fleet starts 64 actors and measures joining, leaving, watching,'
	@echo '                make bench-metrics measures what it costs a run to be watched'
	@echo 'make install    PREFIX=/usr/local DESTDIR=; make uninstall takes it away again'
	@echo 'make deb        a Debian package in build/deb; make test-deb installs it on a clean root and trains there'
	@echo 'make test-systemd  the units under a real systemd that boots in systemd-nspawn'
	@echo 'make test-deploy  manifests against their schemas; the parts run from the image that the Containerfile describes'
	@echo 'make clean      remove build/'

setup:
	@deploy/setup

setup-metaworld setup-myosuite setup-maniskill setup-gym: setup-%:
	@deploy/setup-suite $*

# Compiling needs the set-up; say so in a sentence instead of failing on a header.
$(SETUP):
	@echo "tdmpc2: not set up yet: run 'make setup' (or 'make run', which does)" >&2; exit 2

programs: $(PROGRAMS)
tests: $(CHOSEN)

run:
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@deploy/demo $(B)/bin $(ARGS)

run-pixels:
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@deploy/pixels $(B)/bin $(ARGS)

test:
	@deploy/setup
	@$(MAKE) --no-print-directory programs tests
	@tests/support/run $(B) $(if $(ONLY),--only '$(ONLY)') $(CHOSEN) $(wildcard tests/process/*.sh)

test-long:
	@deploy/setup
	@$(MAKE) --no-print-directory programs tests $(LONGS)
	@TD_LONG=1 tests/support/run $(B) $(if $(ONLY),--only '$(ONLY)') $(TESTS) $(wildcard tests/process/*.sh) $(LONGS)

# What loses nothing for two minutes may lose something in hours.
SOAK = $(filter $(addprefix $(B)/tests/,crash/% fuzz/% sim/% $(addprefix process/test_,kill soak netns clock pause)),$(TESTS))
soak:
	@deploy/setup
	@$(MAKE) --no-print-directory programs tests
	@TD_LONG=1 TD_ROUNDS=$(or $(ROUNDS),10000) TD_TIME=$(or $(TIME),3600) \
		tests/support/run $(B) $(if $(ONLY),--only '$(ONLY)') $(SOAK)

# libFuzzer finds inputs by coverage; what makes a target fall becomes a regression input of `make test`.
fuzz:
	@deploy/setup
	@command -v clang >/dev/null || { echo "tdmpc2: make fuzz needs clang: apt-get install clang libclang-rt-14-dev" >&2; exit 2; }
	@$(MAKE) --no-print-directory fuzzers CC=clang SAN=address,undefined FLAVOUR=fuzz FUZZ_MAIN=1 \
		CFLAGS='-O1 -fsanitize=fuzzer-no-link -Wno-unknown-warning-option -Wno-unknown-pragmas $(CFLAGS)'
	@tests/fuzz/run build/fuzz $(or $(TIME),60) $(ONLY)

# a target's whole name means it alone, else part of names does
fuzzers: $(if $(ONLY),$(or $(filter %/$(ONLY),$(FUZZ)),$(foreach target,$(FUZZ),$(if $(findstring $(ONLY),$(notdir $(target))),$(target)))),$(FUZZ))

# PyTorch and several generations of tensordict read what we write, and we what they write
TENSORDICTS ?= 0.1.2 0.2.1 0.6.2 0.13.0
test-interop: programs
	@deploy/setup-suite torch
	@python=third_party/venv-torch/bin/python; $$python tests/suites/interop.py $(B)/bin/tdmpc2 || exit 1; \
	for version in $(TENSORDICTS); do \
		there=third_party/venv-torch/tensordict-$$version; \
		[ -d $$there/tensordict ] || $$python -m pip install --quiet --disable-pip-version-check --no-deps \
			--target $$there tensordict==$$version || exit 2; \
		PYTHONPATH=$$there $$python tests/suites/interop.py $(B)/bin/tdmpc2 chunks || exit 1; \
	done

# What metrics, scraped, and the dashboard, watched, cost a run: PAIRS=8 of runs side by side, in lock-step.
bench-metrics: programs
	@PAIRS=$(or $(PAIRS),8) TD_BUILD=$(B) bash tests/suites/metrics_cost.sh

# Frames a second beside dm_control's own (downloads it).
bench-render:
	@deploy/setup-suite dm_control
	@$(MAKE) --no-print-directory programs
	@third_party/venv-dm_control/bin/python tests/suites/dm_control_frames.py speed $(B)/bin/tdmpc2

# 64 actors with a stand-in policy: joining, leaving, what watching them costs.
bench-fleet:
	@$(MAKE) --no-print-directory programs
	@python3 tests/suites/fleet.py $(B)/bin/tdmpc2

# Set every suite of Python environments up, step and train each for real (minutes; downloads packages).
test-suites: setup-metaworld setup-myosuite setup-maniskill setup-gym
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@TD_BUILD=$(B) bash tests/suites/suites.sh

# What a run shows, read by those it is for: Prometheus, TensorBoard (downloads packages).
test-monitoring:
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@TD_BUILD=$(B) bash tests/suites/monitoring.sh

# The dashboard in Chromium (installs chromium, nodejs; playwright-core from npm into third_party/).
test-dashboard:
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@TD_BUILD=$(B) bash tests/suites/dashboard.sh

# `tdmpc2 launch` on a real Slurm of this machine (installs slurm-wlm, munge; needs root).
test-slurm:
	@deploy/setup
	@$(MAKE) --no-print-directory programs
	@command -v slurmctld >/dev/null || { apt-get update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get install -y --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1 || \
		{ echo "tdmpc2: make test-slurm needs slurm-wlm and munge: apt-get install slurm-wlm munge" >&2; exit 2; }
	@TD_BUILD=$(B) bash tests/process/slurm.sh

# Pages and manual pages: what is a table in the code is a table there.
docs: programs
	@deploy/setup-suite docs
	@docs/build $(B)/bin build/docs

man: programs
	@rm -rf build/man && mkdir -p build/man
	@for page in $$($(B)/bin/tdmpc2 manual pages); do \
		$(B)/bin/tdmpc2 manual $$page > build/man/$$page.1 || exit 1; \
	done

test-docs: docs man
	@TD_DOCS=all TD_BUILD=$(B) bash tests/process/docs.sh

bench: programs
	@$(B)/bin/tdmpc2 bench all $(ARGS)

# What is installed finds what lies beside it and nothing in this folder: the programs are linked once more.
SHARE  = $(DESTDIR)$(PREFIX)/share/tdmpc2
DOC    = $(DESTDIR)$(PREFIX)/share/doc/tdmpc2
MAN1   = $(DESTDIR)$(PREFIX)/share/man/man1
UNITS ?= $(PREFIX)/lib/systemd
INSTALLED := $(PROGRAMS:$(B)/bin/%=$(B)/installed/%)
# (made by `make`, so that `sudo make install` writes nothing into this folder)
all: $(INSTALLED)
install: $(INSTALLED)
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib/tdmpc2' '$(SHARE)/bridge/tdmpc2_bridge' '$(SHARE)/monitoring'
	install -m 755 $(INSTALLED) '$(DESTDIR)$(PREFIX)/bin'
	install -m 644 $(MUJOCO)/lib/libmujoco.so.3.1.2 '$(DESTDIR)$(PREFIX)/lib/tdmpc2'
	cp -r third_party/dm_control/suite common/env/dm/models '$(SHARE)'
	find '$(SHARE)/suite' '$(SHARE)/models' -type f -exec chmod 644 {} + -o -type d -exec chmod 755 {} +
	install -m 644 common/env/bridge/run.py '$(SHARE)/bridge'
	install -m 644 common/env/bridge/tdmpc2_bridge/*.py '$(SHARE)/bridge/tdmpc2_bridge'
	install -m 644 $(filter-out %/README.md,$(wildcard deploy/monitoring/*.*)) '$(SHARE)/monitoring'
	install -D -m 644 common/env/plugin.h '$(DESTDIR)$(PREFIX)/include/tdmpc2/plugin.h'
	install -d '$(DOC)/licences' '$(MAN1)'
	install -m 644 README.md SECURITY.md RELIABILITY.md LICENSE NOTICE $(wildcard docs/*.md) '$(DOC)'
	install -m 644 $(MUJOCO)/LICENSE '$(DOC)/licences/mujoco'
	install -m 644 $(MUJOCO)/LICENSES_THIRD_PARTY.md '$(DOC)/licences/mujoco-third-party.md'
	install -m 644 third_party/dm_control/LICENSE '$(DOC)/licences/dm_control'
	for page in $$($(B)/bin/tdmpc2 manual pages); do \
		$(B)/bin/tdmpc2 manual $$page > '$(MAN1)'/$$page.1 && chmod 644 '$(MAN1)'/$$page.1 || exit 1; \
	done
	deploy/units install '$(DESTDIR)' '$(PREFIX)' '$(UNITS)'

# Only what install puts there; folders of its own go whole, the others stay.
uninstall:
	rm -f $(foreach program,$(INSTALLED),'$(DESTDIR)$(PREFIX)/bin/$(notdir $(program))') '$(MAN1)'/tdmpc2.1 '$(MAN1)'/tdmpc2-*.1
	rm -rf '$(DESTDIR)$(PREFIX)/lib/tdmpc2' '$(SHARE)' '$(DOC)' '$(DESTDIR)$(PREFIX)/include/tdmpc2'
	deploy/units uninstall '$(DESTDIR)' '$(PREFIX)' '$(UNITS)'

# A Debian package of that; test-deb installs it on a clean root and trains there (root; minutes; downloads packages).
deb: $(INSTALLED)
	@deploy/debian/build build/deb
	@if command -v lintian >/dev/null; then lintian --fail-on error --tag-display-limit 0 build/deb/*.deb; \
	else echo 'lintian is not here: the package was not checked' >&2; fi

test-deb:
	@deploy/setup-suite packaging
	@$(MAKE) --no-print-directory deb
	@bash tests/suites/deb.sh build/deb/*.deb

# The units under a real systemd, which boots in systemd-nspawn.
test-systemd:
	@deploy/setup-suite packaging
	@$(MAKE) --no-print-directory deb
	@bash tests/suites/systemd.sh build/deb/*.deb

# Kubernetes manifests against the schemas; the image's root made by its Containerfile's steps, and its parts run in it.
test-deploy:
	@deploy/setup-suite packaging
	@$(MAKE) --no-print-directory deb
	@third_party/venv-packaging/bin/python tests/suites/deploy.py build/deb/*.deb

clean:
	rm -rf build

# --- rules -----------------------------------------------------------------

$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h &: proto/%.proto | $(SETUP)
	@mkdir -p $(GEN)
	$(call show,PROTO,$<)
	$(Q)protoc-c --c_out=$(GEN) --proto_path=proto $<

$(B)/%.o: %.c Makefile | $(PROTO_H) $(SETUP)
	@mkdir -p $(@D)
	$(call show,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(B)/gen/%.o: $(GEN)/%.c Makefile | $(PROTO_H) $(SETUP)
	@mkdir -p $(@D)
	$(call show,CC,$<)
	$(Q)$(CC) $(filter-out -W%,$(CFLAGS_ALL)) -MMD -MP -c -o $@ $<

# What it takes in by .incbin
$(B)/learner/dashboard/assets.o: $(wildcard learner/dashboard/page.* learner/dashboard/published.csv learner/dashboard/uplot/uPlot.*)

# The archive is remade whole, so a deleted or renamed source leaves nothing behind.
$(LIB): $(call obj,$(LIB_SRC)) $(PROTO_C:$(GEN)/%.c=$(B)/gen/%.o)
	@rm -f $@
	$(call show,AR,$@)
	$(Q)$(AR) rcs $@ $^

$(B)/bin/tdmpc2: $(call obj,tools/main.c $(TOOL_SRC)) $(LIB)
$(B)/bin/tdmpc2-learner: $(call obj,learner/main.c) $(LIB)
$(B)/bin/tdmpc2-replay: $(call obj,learner/replay/main.c) $(LIB)
$(B)/bin/tdmpc2-actor: $(call obj,actor/main.c) $(LIB)
$(PROGRAMS):
	@mkdir -p $(@D)
	$(call show,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LDLIBS)

# for installing: the same without the way into this folder's third_party/
$(B)/installed/tdmpc2: $(call obj,tools/main.c $(TOOL_SRC)) $(LIB)
$(B)/installed/tdmpc2-learner: $(call obj,learner/main.c) $(LIB)
$(B)/installed/tdmpc2-replay: $(call obj,learner/replay/main.c) $(LIB)
$(B)/installed/tdmpc2-actor: $(call obj,actor/main.c) $(LIB)
$(INSTALLED):
	@mkdir -p $(@D)
	$(call show,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(filter-out -Wl$(comma)-rpath$(comma)$(MUJOCO)/lib,$(LDFLAGS_ALL)) $(LDLIBS)

$(B)/%.so: %.c Makefile | $(SETUP)
	@mkdir -p $(@D)
	$(call show,CC,$<)
	$(Q)$(CC) $(filter-out -fPIE -fsanitize=% -fno-sanitize%,$(CFLAGS_ALL)) -fPIC -shared -o $@ $<

$(TESTS) $(LONGS): | $(PRELOADS)
$(TESTS) $(LONGS): $(B)/%: $(B)/%.o $(TEST_SUPPORT) $(call obj,$(TOOL_SRC)) $(LIB)
	$(call show,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LDLIBS) -lcmocka

$(FUZZ): $(B)/%: $(B)/%.o $(FUZZ_OBJ)
	$(call show,LINK,$@)
	$(Q)$(CC) -o $@ $^ $(if $(FUZZ_MAIN),-fsanitize=fuzzer) $(LDFLAGS_ALL) $(LDLIBS)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
