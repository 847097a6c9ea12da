"""ChunkClipping rules applied to many lanes: which lanes form a group, where a rule looks, and what it did."""
