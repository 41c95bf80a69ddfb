# Each target sets up what it needs first: any of them works as the first command on a new machine.
.PHONY: run test check bench chaos format setup setup-ide test-jetbrains test-kubernetes bench-kubernetes image

run:
	@scripts/setup run
	@.venv/bin/carrel up --claim desktop

test: setup setup-ide
	.venv/bin/python -m tests.lanes

# The tests of JetBrains' IDEs with a real one: the program that CARREL_JETBRAINS names, else the
# first that is found. Without one it fails, and says so.
test-jetbrains: setup
	CARREL_TEST_JETBRAINS=1 .venv/bin/pytest tests/workspace/desktopd/ide/test_jetbrains.py

# A real Kubernetes: a control plane and a node of this machine, in a network of their own. Root,
# Debian 12. Its programs are built once, and kept beside the checkout ($CARREL_CACHE).
test-kubernetes: setup
	@scripts/setup-kubernetes
	.venv/bin/python -m tests.again -m kubernetes tests/kubernetes tests/images

# What a desktop takes there, beside what its pod takes by itself.
bench-kubernetes: setup
	@scripts/setup-kubernetes
	.venv/bin/python -m benchmarks.realpods

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup setup-ide
	.venv/bin/carrel bench
	.venv/bin/python -m benchmarks.fleet
	.venv/bin/python -m benchmarks.watching
	.venv/bin/python -m benchmarks.events
	.venv/bin/python -m benchmarks.dashboard
	.venv/bin/python -m benchmarks.egress
	.venv/bin/python -m benchmarks.browser
	.venv/bin/python -m benchmarks.ide
	.venv/bin/python -m benchmarks.pods
	.venv/bin/python -m benchmarks.containers
	.venv/bin/python -m benchmarks.placing

# A thousand claims among random kills; a test runs a short piece of it.
chaos: setup
	.venv/bin/python -m tests.chaos

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

setup:
	@scripts/setup dev

# The desktop as an image, for Kubernetes and Docker: all of it on Ubuntu 22.04. `scripts/build-image`
# builds less, and on Debian; see docs/image.md.
image:
	@scripts/build-image

# The editor that desktops of the template `code` have: 600 MB, made once, three minutes.
setup-ide:
	@scripts/setup-ide
