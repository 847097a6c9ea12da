"""What a search found and what of it held on fresh seeds: numbers, words and tables."""
