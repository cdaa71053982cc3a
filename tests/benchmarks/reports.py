"""What the tests of the benchmarks read."""

import re


def tables_of(report):
    """The tables by the heading above them: lists of rows, each a dict by the column."""
    tables = {}
    for section in report.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        for block in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
            header, _, *rows = (line.strip("| ").split(" | ") for line in block.splitlines())
            assert all(len(row) == len(header) for row in rows)
            tables.setdefault(heading, []).append([dict(zip(header, row)) for row in rows])
    return tables
