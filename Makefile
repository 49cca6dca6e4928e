# Thin by design: each target is a line of cargo, after the set-up that it needs. `make help` lists them.

XTASK := cargo xtask
# For clippy on the targets: the hypervisor's, and the test guests'.
TARGET := --target thumbv7a-none-eabi
GUEST_TARGET := --target armv7a-none-eabi

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: setup-build ## install what is missing: tools, Rust target, Debian's dom0 (repeatable; no change if all is there)
	@tests/setup/host.sh
	@tests/setup/debian.sh
	@tests/setup/uboot.sh
	@tests/setup/uefi.sh
	@tests/setup/kmove.sh
	@tests/setup/dom0.sh
	@tests/setup/guests.sh

setup-build:
	@tests/setup/host.sh build
	@tests/setup/rust-target.sh

build: setup-build ## dist/krypton (flat, with zImage header), krypton.efi (the same), krypton.elf, krypton.uImage
	@$(XTASK) image

uboot: setup ## dist/krypton.uImage, krypton.itb, boot.scr for a board: make uboot BOARD=arndale (virt, arndale, orangepi-pc, vexpress)
	@$(XTASK) uboot $(BOARD)

kmove: setup-build ## dist/kmove, a static armhf program for any Debian dom0 that saves and moves domUs, and dist/xl for its verbs
	@tests/setup/kmove.sh
	@mkdir -p dist
	@cp target/kmove/kmove tools/xl dist/

deb: setup ## dist/krypton-hypervisor_VERSION_armhf.deb for a Debian with U-Boot or UEFI, and its symbols in a -dbgsym package
	@$(XTASK) deb

debian: setup ## a whole Debian as dom0, made once, started by U-Boot in QEMU: login root, password krypton; ssh on port 2222
	@$(XTASK) deb
	@tests/setup/image.sh
	@$(XTASK) debian $(ARGS)

flash: setup ## an SD card or a file for a board with U-Boot: make flash BOARD=arndale DEST=card.img (or /dev/sdX; vexpress: ARGS=--nor)
	@$(XTASK) flash $(BOARD) $(DEST) $(ARGS)

run: setup ## dom0's shell in QEMU, which boots once for each build (make run ARGS="--smp 4 --mem 2048"; ARGS=--fresh boots)
	@$(XTASK) run $(ARGS)

demo: setup ## play the story of a domU, each step explained; ends by itself
	@$(XTASK) demo $(ARGS)

qemu: setup ## boot until dom0 is up (also: ARGS="--test disks", ARGS=--xen for Debian's Xen)
	@$(XTASK) boot $(ARGS)

test: setup ## all tests, on the host and in QEMU (some: make test ARGS="guest fault")
	@$(XTASK) test $(ARGS)

soak: setup ## what takes hours: domUs without end, load on them, load on dom0 (shorter: make soak ARGS="cycles --count 50")
	@$(XTASK) soak $(ARGS)

fuzz: setup-build ## a minute of libFuzzer for each target of tests/fuzz (one, longer: make fuzz ARGS="calls --seconds 3600")
	@tests/setup/host.sh fuzz
	@$(XTASK) fuzz $(ARGS)

bench: setup ## Krypton and Debian's Xen side by side, into docs/performance.md (a part: make bench ARGS=micro)
	@$(XTASK) bench $(ARGS)

bench-check: setup ## fail where a service costs over 3 % more than stored (tests/bench/figures.toml)
	@$(XTASK) bench-check $(ARGS)

tree: setup-build ## what a boot makes of a board's device tree: make tree DTB=board.dtb MEM=0x40000000:1G (ARGS="--out dom0.dtb")
	@$(XTASK) tree $(DTB) $(MEM) $(ARGS)

report: setup-build ## one file to send of a board that ran or did not: make report DTB=board.dtb LOG=console.txt MEM=1G
	@$(XTASK) report $(DTB) $(LOG) $(MEM) $(ARGS)

gdb: setup ## boot and wait for a debugger: gdb-multiarch dist/krypton.elf -ex 'target remote :1234'
	@$(XTASK) image
	@$(XTASK) run --gdb $(ARGS)

clippy: setup-build ## lints, host and target, all denied
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo clippy --release $(TARGET) -p krypton -p armv7 -p krypton-efi -- -D warnings
	@cargo clippy --release $(TARGET) -p krypton --features latency -- -D warnings
	@cd tests/guests && cargo clippy --release $(GUEST_TARGET) -- -D warnings

fmt: ## format all Rust code
	@cargo fmt --all
	@cd tests/guests && cargo fmt

fmt-check: ## say what `make fmt` would change
	@cargo fmt --all -- --check
	@cd tests/guests && cargo fmt -- --check

doc: ## rustdoc in target/doc; broken links are errors
	@RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links" cargo doc --workspace --no-deps

prepush: fmt-check clippy doc setup ## before a push, in minutes: format, lints, docs, host tests, one domU's story in dom0
	@cargo test --quiet --workspace
	@$(XTASK) test "dom0 demo"

.PHONY: help setup setup-build build kmove uboot deb debian flash run demo qemu test soak fuzz bench bench-check tree report gdb clippy fmt fmt-check doc prepush
