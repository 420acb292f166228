.PHONY: lint test test-slow

lint:
	bash run.sh test lint

test:
	bash run.sh test

test-slow:
	bash run.sh test slow
