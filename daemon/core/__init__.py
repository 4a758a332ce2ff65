"""The rules, pure: nouns, life cycle, decision, policy. Nothing here reads a clock or a disk."""
