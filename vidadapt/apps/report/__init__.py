"""What a person looks at: pages, sheets, tables."""
