"""What a search found: its records, tables, charts and page."""
