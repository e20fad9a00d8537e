# A thin front over `cargo xtask`; every command does all its own set-up. tests/xtask/README.md says what each does.

xtask = . tests/xtask/bootstrap.sh && cargo xtask

help:
	@echo 'make run         a virtual machine from a manifest, and its console'
	@echo 'make test        what CI runs: all checks and a representative of every test'
	@echo 'make test-full   all checks and every test'
	@echo 'make test-list   the full names of the tests, one a line'
	@echo 'make hostile-list  the cases of the hostile guest, one a line'
	@echo 'make fuzz        every fuzz target for a minute'
	@echo 'make bench       measure against QEMU, in the lab (ROWS=block,net for only some)'
	@echo 'make build       our programs, for this machine and for riscv64'
	@echo 'make images      the images that a cluster installs (PUSH=registry[/prefix] pushes them, ARCH=amd64 makes only those)'
	@echo 'make manifests   what the chart installs as plain YAML (SET="images.registry=…" sets values)'
	@echo 'make setup       install and fetch all that the others need'
	@echo 'make clean       remove what was built here (the cache folder stays)'

run test-full test-list test hostile-list fuzz bench images manifests build setup:
	@$(xtask) $($@-task)

run-task = run
test-task = test
test-full-task = test --full
test-list-task = test --full --list
hostile-list-task = hostile-list
fuzz-task = fuzz
bench-task = bench $(if $(ROWS),-- --rows $(ROWS))
images-task = images $(addprefix --arch ,$(ARCH)) $(addprefix --push ,$(PUSH))
manifests-task = manifests $(addprefix --set ,$(SET))
build-task = build
setup-task = setup

clean:
	@. tests/xtask/bootstrap.sh && cargo clean

.PHONY: help run test test-full test-list hostile-list fuzz bench images manifests build setup clean
