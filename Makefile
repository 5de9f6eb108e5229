.PHONY: help setup build demo soak crash power torture many bench test check checks sim mutations fuzz properties catch-up digest

help:
	@echo "make demo    three nodes on this machine, a crash, a cut and a switch under load, then the reckoning (root)"
	@echo "make soak    the demo's load under random faults for an hour (MINUTES=n, SEED=n), the reckoning, then make torture, make crash, make power with 300 cuts, make checks, make many, make sim with 10,000 seeds, make mutations, make fuzz and make properties (root)"
	@echo "make sim     the whole product simulated in one thread under a virtual clock: a thousand seeds full of faults (SEEDS=n, FROM=n; SEED=n for one)"
	@echo "make mutations  deliberate bugs, one after the other: does make sim find each (SEEDS=n)"
	@echo "make fuzz    every decoder of bytes from a disk or a peer against anything, a minute each (SECONDS_EACH=n; TARGET=name for one)"
	@echo "make properties  the random properties with 5,000 cases each, from a seed that is drawn (CASES=n, SEED=n)"
	@echo "make crash   PostgreSQL killed 200 times, alone and with its node (CYCLES=n, SEED=n; root); the end of make soak"
	@echo "make power   nodes lose power under load, one, two or all three at once, 100 times: is all there that was acknowledged (CUTS=n, SEED=n; MUTATION=name of a deliberate bug; root)"
	@echo "make checks  the replicas compared again and again under the heaviest load for an hour: no false alarm (MINUTES=n; root)"
	@echo "make torture  random operations on bytes and names against a model, under the same faults (MINUTES=n, SEED=n; root)"
	@echo "make many    ten million files: memory, a failover, a check; OPEN=n opens so many at once, WALK=1 compares du and ls -lR with the local disk (FILES=n; root)"
	@echo "make catch-up  how fast a node comes back, how much crosses the network for it, and what recordings notice beside a copy (MIB=n, ROUNDS=n; root)"
	@echo "make digest  what the digest that is compared all the time costs: this build beside one without it, by turns (ROUNDS=n; root)"
	@echo "make bench   the speed of Holdfast, GlusterFS and the local disk under the same loads, by turns (ONLY=load,load; ROUNDS=n; root)"
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

soak: setup
	@scripts/demo.sh soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))
	@scripts/torture.sh --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))
	@scripts/crash.sh $(or $(CYCLES),200) $(SEED)
	@scripts/power.sh $(or $(CUTS),300) $(SEED)
	@scripts/checks.sh $(or $(MINUTES),60)
	@scripts/many.sh --files $(or $(FILES),10000000) --open $(or $(OPEN),1000000)
	@SEEDS=10000 FROM=1 scripts/sim.sh
	@scripts/mutations.sh
	@SECONDS_EACH=120 scripts/fuzz.sh
	@scripts/properties.sh

sim: setup
	@SEEDS=$(or $(SEEDS),1000) FROM=$(or $(FROM),1) SEED=$(SEED) scripts/sim.sh

mutations: setup
	@SEEDS=$(or $(SEEDS),3000) scripts/mutations.sh

fuzz: setup
	@SECONDS_EACH=$(or $(SECONDS_EACH),60) TARGET=$(TARGET) scripts/fuzz.sh

properties: setup
	@scripts/properties.sh $(or $(CASES),5000) $(SEED)

crash: setup
	@scripts/crash.sh $(or $(CYCLES),200) $(SEED)

power: setup
	@scripts/power.sh $(or $(CUTS),100) $(SEED)

checks: setup
	@scripts/checks.sh $(or $(MINUTES),60)

torture: setup
	@scripts/torture.sh --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

many: setup
	@scripts/many.sh --files $(or $(FILES),10000000) $(if $(OPEN),--open $(OPEN)) $(if $(WALK),--walk)

catch-up: setup
	@scripts/catch-up.sh --mib $(or $(MIB),1024) --rounds $(or $(ROUNDS),3)

digest: setup
	@scripts/digest.sh --rounds $(or $(ROUNDS),10)

bench: setup
	@scripts/bench.sh $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

test: setup
	@scripts/test.sh

check: setup
	@scripts/check.sh
