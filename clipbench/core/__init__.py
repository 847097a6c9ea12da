"""Trials and their records: the nouns that every other folder shares."""
