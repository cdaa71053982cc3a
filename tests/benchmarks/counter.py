"""What a test of `benchmarks.processes` runs in a process of its own."""

import os


class Counter:
    def __init__(self, start):
        self.count = start

    def add(self, amount):
        self.count += amount
        return self.count

    def fail(self):
        raise KeyError("this is why")

    def die(self):
        os._exit(3)

    def variable(self, name):
        return os.environ.get(name)
